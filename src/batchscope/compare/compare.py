"""``batchscope compare``: two finished studies side by side, as Markdown and as a page, from the same sections."""

from pathlib import Path
from typing import NamedTuple

from batchscope.compare.differences import Difference, code_differences, config_differences, environment_differences
from batchscope.compare.results import Compared, Results, compare_results
from batchscope.compare.sides import Side, read_sides
from batchscope.errors import counted
from batchscope.files import write_text
from batchscope.pages.render import render
from batchscope.report.numbers import accuracy, listed, points
from batchscope.report.verdicts import ESTIMANDS
from batchscope.watch.frame import shown
from batchscope.wording import REVIEWS, Wording


class Section(NamedTuple):
    """A table with its heading. A column that begins with ``#`` holds numbers."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    sentences: list[str]
    """Said above the table; alone where it has no rows."""


class Comparison(NamedTuple):
    """What is to be said of two studies."""

    first: str
    second: str
    headline: str
    sections: list[Section]


def compare(first: Path, second: Path) -> Comparison:
    """Compare two studies, each named by config, folder or name.

    Raises UserError where one is no study or is not finished, and where they share no cell.
    """
    one, other = read_sides(first, second)
    results = compare_results(one, other)
    config, code = config_differences(one, other), code_differences(one, other)
    environment = environment_differences(one, other)
    both = counted(len(results.cells), "cell")
    said = f"{_stale(one, other)}{both} in both. {in_brief(len(config), len(code), len(environment))}"
    sections = [
        _results(one, other, results),
        _differences("Config", "key", one, other, config, "The two configs say the same."),
        _differences("Code", "stage", one, other, code, "Both were made with the same code, stage by stage."),
        _differences(
            "Libraries, devices, precision", "what", one, other, environment, "All runs have these in common."
        ),
    ]
    return Comparison(one.name, other.name, said, sections)


def in_brief(keys: int, stages: int, facts: int) -> str:
    """How much differs besides the results, in a sentence."""
    found = [
        *([f"{counted(keys, 'key')} of the config"] if keys else []),
        *([f"the code of {counted(stages, 'stage')}"] if stages else []),
        *([f"{counted(facts, 'fact')} about libraries and devices"] if facts else []),
    ]
    if not found:
        return "Config, code, libraries and devices are the same."
    return f"What differs: {listed(found)}."


def _differences(title: str, what: str, one: Side, other: Side, found: list[Difference], nothing: str) -> Section:
    return Section(title, [what, one.name, other.name], [list(row) for row in found], [] if found else [nothing])


def _results(one: Side, other: Side, results: Results) -> Section:
    several, wording = len({cell.place[3] for cell in results.cells}) > 1, _wording(one, other)
    columns = ["model", "#batch size", "LR policy", *(["budget"] if several else []), f"#{one.name}", f"#{other.name}"]
    columns += ["#difference, points", "#95% interval", "how"]
    rows = []
    for cell in results.cells:
        model, batch, policy, budget = cell.place
        row = [model, f"{batch:,}", policy, *([budget] if several else [])]
        row += [f"{accuracy(cell.first)} ({cell.first_seeds})", f"{accuracy(cell.second)} ({cell.second_seeds})"]
        rows.append([*row, points(100 * cell.difference), _interval(cell), wording.of(_how(cell))])
    said = [wording.of(sentence) for sentence in _sentences(one, other, results)]
    return Section("Results of the cells in both", columns, rows, said)


def _wording(one: Side, other: Side) -> Wording:
    """What both studies call one of their texts; `review` where they differ."""
    both = [Wording(*side.jobs.settings.words) for side in (one, other)]
    return both[0].beside([one.name, other.name]) if both[0] == both[1] else REVIEWS


def _interval(cell: Compared) -> str:
    return "–" if cell.method == "same" else f"{points(100 * cell.low)} to {points(100 * cell.high)}"


def _how(cell: Compared) -> str:
    """What the interval rests on and is about."""
    match cell.method:
        case "same":
            return "the same trainings"
        case "unpaired":
            return "unpaired: these trained models, on reviews like these"
    assert cell.estimand is not None
    return f"paired over {counted(cell.seeds, 'seed')}: {ESTIMANDS[cell.estimand]}"


def _sentences(one: Side, other: Side, results: Results) -> list[str]:
    said = [
        f"Test accuracy of the best checkpoints, with the number of seeds in brackets. A difference is {other.name} "
        f"minus {one.name}. The intervals describe: there is no correction for their number, and no verdict."
    ]
    if results.unpaired_because:
        said.append(
            f"The intervals are not paired by review, because {results.unpaired_because}. They are Newcombe's for two "
            "independent samples of reviews; the scatter of the seeds is not in them."
        )
    elif any(cell.method == "unpaired" for cell in results.cells):
        said.append(
            "Where the two studies have no seed in common, the interval is Newcombe's for two independent samples of "
            "reviews; the scatter of the seeds is not in it."
        )
    if any(cell.method == "paired" and cell.seeds < max(cell.first_seeds, cell.second_seeds) for cell in results.cells):
        said.append("A paired difference is over the seeds that both studies have; the accuracies are over all.")
    places = [set(side.places()) for side in (one, other)]
    for side, others, mine in ((one, other, places[0] - places[1]), (other, one, places[1] - places[0])):
        if mine:
            said.append(
                f"{counted(len(mine), 'cell')} of {side.name} {'is' if len(mine) == 1 else 'are'} not in {others.name}."
            )
    return said


def _stale(one: Side, other: Side) -> str:
    """What is to be known before anything is read: results of another config than the one that is shown."""
    return "".join(
        f"The tables of {side.name} were made of another config or code than that of its workflow's last start, so its "
        "results are older than the config compared here: start its workflow again. "
        for side in (one, other)
        if side.stale
    )


# ------------------------------------------------------------------------------------------------------- as text


def as_markdown(found: Comparison) -> str:
    """The comparison as Markdown; the same studies give the same text."""
    lines = [f"# {_cell(found.first)} and {_cell(found.second)}", "", found.headline]
    for section in found.sections:
        lines += ["", f"## {section.title}", ""]
        lines += [_cell(" ".join(section.sentences)), ""] if section.sentences else []
        if section.rows:
            lines.append("| " + " | ".join(_cell(name.removeprefix("#")) for name in section.columns) + " |")
            lines.append(
                "|" + "|".join(" ---: " if name.startswith("#") else " --- " for name in section.columns) + "|"
            )
            lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in section.rows]
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str) -> str:
    """Text that ends no cell, starts no HTML and moves no cursor."""
    return shown(text).replace("|", "\\|").replace("<", "&lt;")


def write_page(found: Comparison, path: Path) -> None:
    """Write the comparison as a self-contained page."""
    write_text(path, render("compare.html.j2", {"found": found, "shown": shown}))
