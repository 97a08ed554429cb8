"""The sizes of a study's splits before they are drawn, as far as they are known."""

import pyarrow.parquet as pq

from batchscope.data.shares import SplitSizes, pooled_sizes
from batchscope.data.spec import CorpusSpec, SplitSpec
from batchscope.provenance.jobs import JobFile


def expected_sizes(jobs: JobFile) -> SplitSizes | None:
    """Sizes by the config's shares; None where the number of reviews is not known, or the source divides them.

    A sample, the synthetic corpus and the corpus on disk say how many reviews there are.
    """
    corpus, split = jobs.spec("corpus", CorpusSpec), jobs.spec("split", SplitSpec)
    reviews = corpus.sample or (corpus.synthetic.reviews if corpus.synthetic else None)
    if reviews is None and jobs.layout.corpus.is_file():
        reviews = pq.read_metadata(jobs.layout.corpus).num_rows
    if reviews is None or split.method == "official":
        return None
    return pooled_sizes(reviews, split.validation, split.test)
