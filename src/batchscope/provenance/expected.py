"""The sizes of a study's splits: as they are drawn on disk, or before that as far as they are known.

The Snakefile asks for them at every start. So pyarrow, which takes a quarter of a second, is imported only where
there is a file.
"""

from collections.abc import Mapping

from batchscope.data.shares import SplitSizes, pooled_sizes
from batchscope.data.spec import CorpusSpec, SplitSpec
from batchscope.files import DamagedFileError
from batchscope.provenance.jobs import JobFile
from batchscope.provenance.layout import Layout
from batchscope.provenance.stages import is_current


def expected_sizes(jobs: JobFile) -> SplitSizes | None:
    """Sizes by the config's shares; None where the number of reviews is not known, or the source divides them.

    A sample, the synthetic corpus and the corpus on disk say how many reviews there are.
    """
    corpus, split = jobs.spec("corpus", CorpusSpec), jobs.spec("split", SplitSpec)
    reviews = corpus.sample or (corpus.synthetic.reviews if corpus.synthetic else None)
    if reviews is None and jobs.layout.corpus.is_file():
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            reviews = pq.read_metadata(jobs.layout.corpus).num_rows
        except pa.ArrowException as error:
            raise DamagedFileError(jobs.layout.corpus, error) from None
    if reviews is None or split.method == "official":
        return None
    return pooled_sizes(reviews, split.validation, split.test)


def training_examples_on_disk(layout: Layout, specs: Mapping[str, str], codes: Mapping[str, str]) -> int | None:
    """Size of the train split on disk; None where there is none, or where it was made of another config or other code.

    ``specs`` maps the jobs ``corpus`` and ``split`` to the fingerprints of their specs, ``codes`` a verb to the hash of
    its code.
    """
    made = all(is_current(layout, job, specs[job], codes[job]) for job in ("corpus", "split"))
    return count_training_examples(layout) if made and layout.split.is_file() else None


def count_training_examples(layout: Layout) -> int:
    """Size of the train split on disk. Raises DamagedFileError."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        names = pq.read_table(layout.split, columns=["split"])["split"]
    except (pa.ArrowException, KeyError) as error:
        raise DamagedFileError(layout.split, error) from None
    return int(pc.sum(pc.equal(names, "train")).as_py() or 0)
