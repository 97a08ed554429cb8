"""The results of the cells that two studies share: their difference with its interval."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from batchscope.compare.sides import Place, Side
from batchscope.errors import UserError
from batchscope.files import DamagedFileError
from batchscope.provenance.inputs import check_written
from batchscope.report.tables import TestPredictions
from batchscope.statistics.contrasts import estimates
from batchscope.statistics.crossed import moments
from batchscope.statistics.paired import Correct
from batchscope.statistics.records import Estimand
from batchscope.statistics.unpaired import newcombe_interval

Method = Literal["paired", "unpaired", "same"]


class Compared(NamedTuple):
    """A cell of both studies; accuracies are of the best checkpoints on the test reviews, as shares."""

    place: Place
    first: float
    """Over all seeds that the first study has."""
    second: float
    first_seeds: int
    second_seeds: int
    method: Method
    """``same``: both studies read the same trainings, by their fingerprints."""
    seeds: int
    """Shared seeds, over which ``paired`` is taken; 0 else."""
    estimand: Estimand | None
    """What the paired interval is about."""
    difference: float
    """Second minus first; of ``paired`` over the shared seeds."""
    low: float
    high: float
    """95% interval of it."""


class Results(NamedTuple):
    """All shared cells."""

    cells: list[Compared]
    unpaired_because: str
    """Why no interval is paired; empty where the two studies have the same test reviews."""


def compare_results(first: Side, second: Side) -> Results:
    """The cells of both studies, in the order of the first. Raises UserError where there are none."""
    mine, theirs = first.places(), second.places()
    shared = [place for place in mine if place in theirs]
    if not shared:
        raise UserError(
            f"{first.name} and {second.name} share no cell: {_levels(mine)} in the first, {_levels(theirs)} in the "
            "second. Two cells are the same if model, target batch size, LR policy and budget have the same names"
        )
    runs = [{run for place in shared for run in places[place].values()} for places in (mine, theirs)]
    reason = _other_reviews(first, second, runs[0], runs[1])
    correct: list[Mapping[str, Correct]] = [{}, {}]
    if not reason:
        try:
            for side, wanted in zip((first, second), runs, strict=True):
                for run in sorted(wanted):
                    check_written(side.layout, f"evaluate/{run}", ["*/predictions.parquet"])
            read = [
                TestPredictions.read({run: side.layout.run(run) for run in sorted(wanted)})
                for side, wanted in zip((first, second), runs, strict=True)
            ]
        except (OSError, UserError, DamagedFileError) as error:
            reason = f"predictions cannot be read ({error})"
        else:
            correct = [one.correct for one in read]
            if not np.array_equal(read[0].labels, read[1].labels):
                reason = "their test reviews have other labels"
    paired = (correct[0], correct[1]) if not reason else None
    return Results([_compared(place, first, second, mine, theirs, paired) for place in shared], reason)


def _levels(places: Mapping[Place, object]) -> str:
    """`bert (64, 256; constant; 3 epochs)`."""
    models = ", ".join(dict.fromkeys(place[0] for place in places))
    batches = ", ".join(dict.fromkeys(f"{place[1]:,}" for place in places))
    policies = ", ".join(dict.fromkeys(place[2] for place in places))
    budgets = ", ".join(dict.fromkeys(place[3] for place in places))
    return f"{models} ({batches}; {policies}; {budgets})"


def _other_reviews(first: Side, second: Side, mine: set[str], theirs: set[str]) -> str:
    """Why two studies have other test reviews, or may; empty where they have the same."""
    made = {
        (side.manifests[run].get("corpus"), side.manifests[run].get("split"))
        for side, runs in ((first, mine), (second, theirs))
        for run in runs
    }
    if any(None in pair for pair in made):
        return "a manifest does not say of which corpus and split its tokens were made"
    return "they have other reviews, or divide them otherwise" if len(made) > 1 else ""


def _compared(
    place: Place,
    first: Side,
    second: Side,
    mine: Mapping[Place, Mapping[int, str]],
    theirs: Mapping[Place, Mapping[int, str]],
    correct: tuple[Mapping[str, Correct], Mapping[str, Correct]] | None,
) -> Compared:
    """One cell of both."""
    accuracies = [_accuracy(side, place) for side in (first, second)]
    (one, one_reviews), (other, other_reviews) = accuracies
    seeds = [seed for seed in mine[place] if seed in theirs[place]]
    pairs = [(mine[place][seed], theirs[place][seed]) for seed in seeds]
    facts = place, one, other, len(mine[place]), len(theirs[place])
    same = [first.manifests[a]["fingerprint"] == second.manifests[b]["fingerprint"] for a, b in pairs]
    if pairs and all(same) and mine[place].keys() == theirs[place].keys():
        return Compared(*facts, "same", len(seeds), None, other - one, other - one, other - one)
    if correct is None or not pairs:
        low, high = newcombe_interval(one, one_reviews, other, other_reviews)
        return Compared(*facts, "unpaired", 0, None, other - one, low, high)
    differences = np.stack([correct[1][b].astype(np.int8) - correct[0][a].astype(np.int8) for a, b in pairs])
    estimand, estimate = estimates(moments(differences))[0]
    low, high = (float(end) for end in estimate.interval())
    return Compared(*facts, "paired", len(seeds), estimand, float(estimate.difference), low, high)


def _accuracy(side: Side, place: Place) -> tuple[float, int]:
    """Accuracy over all seeds, and the number of test reviews that they share."""
    frame = side.results
    model, batch, policy, budget = place
    rows = frame[(frame.model == model) & (frame.target_batch_size == batch)]
    rows = rows[(rows.lr_policy == policy) & (rows.budget == budget)]
    return int(rows.test_correct.sum()) / int(rows.test_examples.sum()), int(rows.test_examples.iloc[0])
