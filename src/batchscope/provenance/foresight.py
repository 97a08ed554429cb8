"""What a study can establish, said before the money is spent: for ``batchscope plan`` and ``batchscope design``."""

import operator
from pathlib import Path

from batchscope.config.claims import Claims
from batchscope.errors import UserError
from batchscope.files import DamagedFileError, read_json
from batchscope.provenance.expected import expected_sizes
from batchscope.provenance.jobs import JobFile
from batchscope.report.findings import read_findings
from batchscope.report.spec import Place, TablesSpec
from batchscope.report.verdicts import power_in_words
from batchscope.statistics.components import Components
from batchscope.statistics.conclusions import design, stable_components, typical_components
from batchscope.statistics.families import planned
from batchscope.statistics.sweep import chosen_grid

ASSUMED_ACCURACY = 0.9
"""Where no earlier result of the study tells."""
MOST_RUNS = 10**6
MOST_REVIEWS = 10**12
"""Larger numbers are a slip of the finger, and an error rate shared out among more is 0 to a computer."""


def foresight(jobs: JobFile) -> str:
    """The smallest difference that a study can establish, from its config and, where there are any, earlier results."""
    spec = jobs.spec("tables", TablesSpec)
    # Which learning rate a sweep will choose does not matter here: each has its first.
    rates: dict[Place, float] = {}
    for cell in spec.cells:
        if cell.candidate_of is not None:
            rates.setdefault((cell.model, cell.candidate_of, cell.budget, cell.batch), cell.learning_rate)
    contrasts = planned(chosen_grid(spec, rates).cells, spec.claims)
    if not contrasts:
        return "The study has nothing to compare."
    reviews, seeds = test_reviews(jobs), min(len(contrast.seeds) for contrast in contrasts)
    if reviews is None:
        return (
            "How many test reviews there are is known once the data is read. What N of them can show: `batchscope "
            f"design --accuracy {ASSUMED_ACCURACY} --reviews N --seeds {seeds} --contrasts {len(contrasts)}`"
        )
    measured = _measured(jobs.layout.study)
    parts = measured or stable_components(ASSUMED_ACCURACY)
    said = power_in_words(design(parts, seeds, reviews, spec.claims, len(contrasts)), spec.claims, measured is None)
    source = "Components: medians of the study's earlier contrasts."
    if measured is None:
        source = f"Assumed: stable classifiers of {100 * ASSUMED_ACCURACY:.0f}% accuracy; others need more."
    return f"{said} {source}"


def _measured(study_folder: Path) -> Components | None:
    """The components of the study's earlier contrasts; None where there are none that can be read."""
    try:
        return typical_components(read_findings(study_folder))
    except (OSError, KeyError, TypeError, ValueError):
        return None


def test_reviews(jobs: JobFile) -> int | None:
    """Reviews of the test split, from the audit or else as expected; None where neither tells.

    Raises DamagedFileError for an audit that does not say.
    """
    audit = jobs.layout.audit
    if audit.is_file():
        try:
            return operator.index(read_json(audit)["splits"]["test"]["reviews"])
        except (KeyError, TypeError):
            raise DamagedFileError(audit, ValueError("it does not say how many test reviews there are")) from None
    expected = expected_sizes(jobs)
    return None if expected is None else expected.test


def design_in_words(
    accuracy: float, seeds: int, reviews: int, claims: Claims, contrasts: int, sd_seed: float, sd_review: float
) -> str:
    """What so many seeds and test reviews can establish at this accuracy. The SDs are in points, as in the tables.

    Raises UserError for an impossible number.
    """
    if not 0 < accuracy < 1:
        raise UserError(f"--accuracy must be between 0 and 1 (it is {accuracy})")
    for name, value, least, most in (
        ("reviews", reviews, 2, MOST_REVIEWS),
        ("seeds", seeds, 1, MOST_RUNS),
        ("contrasts", contrasts, 1, MOST_RUNS),
        ("sd-seed", sd_seed, 0, 100),
        ("sd-review", sd_review, 0, 100),
    ):
        if not least <= value <= most:
            raise UserError(f"--{name} must be from {least} to {most:,} (it is {value})")
    parts = stable_components(accuracy)._replace(seed=sd_seed / 100, review=sd_review / 100)
    assumed = not (sd_seed or sd_review)
    said = power_in_words(design(parts, seeds, reviews, claims, contrasts), claims, assumed)
    if not assumed:
        return said
    return (
        f"{said} Assumed: stable classifiers, whose seeds differ by chance on the test set alone, and no review that "
        "prefers a batch size in every seed. Give --sd-seed and --sd-review of a pilot study for a realistic figure."
    )
