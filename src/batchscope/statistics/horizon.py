"""Adam's horizon: does a run make enough updates for its moments, and which scaling rule do its settings follow? Pure.

Adam divides by the root of v, an average of squared gradients over about 1/(1 − β₂) updates (Kingma & Ba 2015, arXiv
1412.6980). With an equal number of epochs, a larger batch makes fewer updates, so v refreshes less often: the batch
size then also changes what the optimizer does.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from batchscope.training.schedule import ScheduleName, schedule_factor

FEWEST_REFRESHES = 1.0
"""Below this many refreshes of the second moment, the run ends before its first averaging window does."""
COMPLETE = "complete rule of Malladi et al. 2022"
TOLERANCE = 1e-6
"""Relative difference up to which a learning rate, 1 − β or ε is that of a rule."""
MOST_NAMED = 6
Key = tuple[str, str, str]


class Setting(NamedTuple):
    """What the trainings of one cell have in common, over all seeds."""

    model: str
    lr_policy: str
    budget: str
    target_batch_size: int
    learning_rate: float
    betas: tuple[float, float]
    eps: float
    updates: int
    updates_per_epoch: int
    lr_sum: float
    """Sum of the learning rates of all updates."""


class Horizon(NamedTuple):
    """The audit of one cell. κ is its target batch size over that of the reference cell: the smallest one beside it."""

    model: str
    lr_policy: str
    budget: str
    target_batch_size: int
    learning_rate: float
    beta1: float
    beta2: float
    eps: float
    updates: int
    refreshes: float
    """(1 − β₂) · updates: how often the second moment's averaging window fits into the run."""
    half_life_updates: float
    """ln ½ / ln β₂: updates after which a gradient counts half in the second moment."""
    half_life_epochs: float
    filled: float
    """1 − β₂^updates: the share of the second moment's weights that lies on the run's gradients at its end. Adam's bias
    correction divides by it."""
    lr_sum: float
    lr_sum_ratio: float
    """Sum of the learning rates over that of the reference cell."""
    reference_batch_size: int
    kappa: float
    lr_rule: str
    """``reference``, ``constant``, ``sqrt``, ``linear`` or ``other``: learning rate against the reference cell's."""
    betas_rule: str
    """``reference``, ``constant``, ``malladi``, ``half_life`` or ``other``."""
    eps_rule: str
    """``reference``, ``constant``, ``malladi`` or ``other``."""
    rule: str
    """What the three make together, in words."""


def lr_sum(learning_rate: float, schedule: ScheduleName, warmup: float, updates: int) -> float:
    """Sum over a run of its learning rates; ``warmup`` is the share of the updates over which the rate rises."""
    if schedule == "constant" and not warmup:
        return learning_rate * updates
    rising = round(warmup * updates)
    return learning_rate * math.fsum(schedule_factor(schedule, update, updates, rising) for update in range(updates))


def horizons(settings: Iterable[Setting]) -> list[Horizon]:
    """The audit of every cell, in the order given; equal settings (of several seeds) count once."""
    distinct = list(dict.fromkeys(settings))
    references: dict[Key, Setting] = {}
    for setting in sorted(distinct, key=lambda one: one.target_batch_size):
        references.setdefault(_key(setting), setting)
    return [_horizon(setting, references[_key(setting)]) for setting in distinct]


def warnings(audit: Sequence[Horizon]) -> list[str]:
    """What a reader must know before he reads a difference as one of the batch size; a sentence per finding."""
    unfilled = [one for one in audit if one.refreshes < FEWEST_REFRESHES]
    partial = [one for one in audit if one.lr_rule in ("sqrt", "linear") and one.rule != COMPLETE]
    found = []
    if unfilled:
        cells = _named(map(_refreshes, sorted(unfilled, key=lambda one: one.refreshes)))
        found.append(
            f"Adam's second moment averages over more updates than the run makes in {len(unfilled)} of {len(audit)} "
            f"cells: {cells}. There a difference between batch sizes is also one between optimizers. A longer budget, "
            f"a smaller β₂ (`betas` of the policy) or `scale_betas: half_life` separates the two."
        )
    if partial:
        cells = _named(f"{_cell(one)} ({one.rule})" for one in partial)
        found.append(
            f"The learning rate is scaled by a rule that is incomplete for Adam in {len(partial)} of {len(audit)} "
            f"cells: {cells}."
        )
    return found


# ------------------------------------------------------------------------------------------------------- its parts


def _key(setting: Setting) -> Key:
    return setting.model, setting.lr_policy, setting.budget


def _horizon(own: Setting, reference: Setting) -> Horizon:
    (beta1, beta2), updates = own.betas, own.updates
    kappa = own.target_batch_size / reference.target_batch_size
    half_life = math.log(0.5) / math.log(beta2) if beta2 > 0 else 0.0
    rules = _lr_rule(own, reference, kappa), _betas_rule(own, reference, kappa), _eps_rule(own, reference, kappa)
    return Horizon(
        model=own.model,
        lr_policy=own.lr_policy,
        budget=own.budget,
        target_batch_size=own.target_batch_size,
        learning_rate=own.learning_rate,
        beta1=beta1,
        beta2=beta2,
        eps=own.eps,
        updates=updates,
        refreshes=(1 - beta2) * updates,
        half_life_updates=half_life,
        half_life_epochs=half_life / own.updates_per_epoch,
        filled=1 - beta2**updates,
        lr_sum=own.lr_sum,
        lr_sum_ratio=own.lr_sum / reference.lr_sum,
        reference_batch_size=reference.target_batch_size,
        kappa=kappa,
        lr_rule=rules[0],
        betas_rule=rules[1],
        eps_rule=rules[2],
        rule=_rule(*rules, kappa, reference),
    )


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=TOLERANCE)


def _lr_rule(own: Setting, reference: Setting, kappa: float) -> str:
    ratios = {"reference": kappa == 1, "constant": 1.0, "sqrt": math.sqrt(kappa), "linear": kappa}
    ratio = own.learning_rate / reference.learning_rate
    if ratios.pop("reference"):
        return "reference"
    return next((name for name, expected in ratios.items() if _close(ratio, expected)), "other")


def _betas_rule(own: Setting, reference: Setting, kappa: float) -> str:
    if kappa == 1:
        return "reference"
    pairs = list(zip(own.betas, reference.betas, strict=True))
    if all(_close(beta, before) for beta, before in pairs):
        return "constant"
    if all(_close(1 - beta, kappa * (1 - before)) for beta, before in pairs):
        return "malladi"
    return "half_life" if all(_close(beta, before**kappa) for beta, before in pairs) else "other"


def _eps_rule(own: Setting, reference: Setting, kappa: float) -> str:
    if kappa == 1:
        return "reference"
    if _close(own.eps, reference.eps):
        return "constant"
    return "malladi" if _close(own.eps, reference.eps / math.sqrt(kappa)) else "other"


def _rule(lr: str, betas: str, eps: str, kappa: float, reference: Setting) -> str:
    """What the rules of learning rate, β and ε make together: the completeness of the scaling."""
    if lr == "reference":
        return "reference cell"
    if (lr, betas, eps) == ("constant", "constant", "constant"):
        return "nothing is scaled"
    if (lr, betas, eps) == ("sqrt", "malladi", "malladi"):
        return COMPLETE
    words = {
        "constant": "constant",
        "sqrt": "times √κ",
        "linear": "times κ, a rule for SGD",
        "malladi": "scaled as Malladi et al. 2022",
        "half_life": "of constant half-life in samples",
        "other": "by no rule known here",
    }
    said = f"LR {words[lr]}, β {words[betas]}, ε {words[eps]}"
    impossible = [beta for beta in reference.betas if kappa * (1 - beta) >= 1 - TOLERANCE]
    if lr == "sqrt" and impossible:
        said += f"; a complete rule does not exist at κ = {kappa:g}, as κ(1 − {impossible[0]:g}) ≥ 1"
    return said


def _cell(one: Horizon) -> str:
    return f"{one.model}, {one.lr_policy}, {one.budget}, batch size {one.target_batch_size:,}"


def _refreshes(one: Horizon) -> str:
    """A cell without its LR policy, which changes none of these numbers but β₂."""
    did = f"{one.updates:,} updates, β₂ {one.beta2:.4g}: {one.refreshes:.2g} refreshes, {100 * one.filled:.0f}% filled"
    return f"{one.model}, {one.budget}, batch size {one.target_batch_size:,} ({did})"


def _named(cells: Iterable[str]) -> str:
    all_of_them = list(dict.fromkeys(cells))
    more = len(all_of_them) - MOST_NAMED
    return "; ".join(all_of_them[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
