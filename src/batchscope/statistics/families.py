"""Which cells a study compares, and in which family of tests: as ``claims:`` says, or the default family. Pure."""

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import NamedTuple

from batchscope.config.claims import Claims, Factor
from batchscope.errors import UserError, either
from batchscope.report.spec import GridCell

FACTORS: tuple[Factor, ...] = ("batch_size", "lr_policy", "model")
"""The factors of the default family."""


class Place(NamedTuple):
    """A cell of the grid without its seed."""

    model: str
    batch: int
    policy: str
    budget: str

    def level(self, factor: Factor) -> str:
        """The level of a factor, as text."""
        levels: dict[Factor, object] = {
            "model": self.model,
            "batch_size": self.batch,
            "lr_policy": self.policy,
            "budget": self.budget,
        }
        return str(levels[factor])

    def beside(self, factor: Factor) -> tuple[str, ...]:
        """The levels of all other factors."""
        others: tuple[Factor, ...] = ("model", "batch_size", "lr_policy", "budget")
        return tuple(self.level(other) for other in others if other != factor)


class Planned(NamedTuple):
    """Two places to compare over the seeds that both have."""

    family: str
    factor: Factor
    start: Place
    end: Place
    seeds: tuple[int, ...]
    runs: tuple[tuple[str, str], ...]
    """Per seed the run of ``start`` and that of ``end``."""

    @property
    def identity(self) -> frozenset[frozenset[str]]:
        """Equal for two contrasts that compare the same runs, in whichever direction."""
        return frozenset(frozenset(pair) for pair in self.runs)


Grid = dict[Place, dict[int, str]]
"""Place → seed → run, in the order of the config."""


def grid_of(cells: Iterable[GridCell]) -> Grid:
    """The cells by place and seed."""
    grid: Grid = {}
    for cell in cells:
        grid.setdefault(Place(cell.model, cell.batch, cell.policy, cell.budget), {})[cell.seed] = cell.run
    return grid


def planned(cells: Iterable[GridCell], claims: Claims) -> list[Planned]:
    """The contrasts of a study. Two cells that read the same runs are not compared, and two contrasts of the same runs
    count once in a family.

    Raises UserError where a contrast of the config has no cells to compare.
    """
    grid = grid_of(cells)
    return list(_distinct(_claimed(grid, claims) if claims.contrasts else _default(grid)))


def all_pairs(cells: Iterable[GridCell]) -> list[Planned]:
    """Every pair of batch sizes within a model, policy and budget, the smaller first."""
    grid = grid_of(cells)
    return list(
        _distinct(
            _plan("pairs", "batch_size", start, end, grid)
            for members in _groups(grid, "batch_size")
            for start, end in combinations(sorted(members, key=lambda place: place.batch), 2)
        )
    )


def _default(grid: Grid) -> Iterator[Planned]:
    """Each batch size against the smallest, each policy against the first, each model against the first."""
    for factor in FACTORS:
        for members in _groups(grid, factor):
            ordered = sorted(members, key=lambda place: place.batch)  # policies and models stay in their order
            for end in ordered[1:]:
                yield _plan("default", factor, ordered[0], end, grid)


def _claimed(grid: Grid, claims: Claims) -> Iterator[Planned]:
    factors: tuple[Factor, ...] = ("model", "batch_size", "lr_policy", "budget")
    for name, claim in claims.contrasts.items():
        allowed = {factor: claim.restriction(factor) for factor in factors if factor != claim.factor}
        first, *others = [str(level) for level in claim.levels]
        found = False
        for members in _groups(grid, claim.factor):
            if any(limit and members[0].level(factor) not in limit for factor, limit in allowed.items()):
                continue
            there = {place.level(claim.factor): place for place in members}
            for other in others:
                if first in there and other in there:
                    found = True
                    yield _plan(claim.family, claim.factor, there[first], there[other], grid)
        if not found:
            levels = either(list(dict.fromkeys(place.level(claim.factor) for place in grid)))
            raise UserError(f"claims.contrasts.{name} compares no cells; levels of {claim.factor}: {levels}")


def _groups(grid: Grid, factor: Factor) -> list[list[Place]]:
    """Places that differ in one factor alone, in the order of the config."""
    groups: dict[tuple[str, ...], list[Place]] = {}
    for place in grid:
        groups.setdefault(place.beside(factor), []).append(place)
    return list(groups.values())


def _plan(family: str, factor: Factor, start: Place, end: Place, grid: Grid) -> Planned:
    seeds = tuple(seed for seed in grid[start] if seed in grid[end])
    return Planned(family, factor, start, end, seeds, tuple((grid[start][seed], grid[end][seed]) for seed in seeds))


def _distinct(contrasts: Iterable[Planned]) -> Iterator[Planned]:
    """Without those of a run with itself, and each set of runs once per family."""
    seen: set[tuple[str, frozenset[frozenset[str]]]] = set()
    for contrast in contrasts:
        key = contrast.family, contrast.identity
        if contrast.seeds and key not in seen and all(one != other for one, other in contrast.runs):
            seen.add(key)
            yield contrast
