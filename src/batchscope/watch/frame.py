"""One frame of ``batchscope watch``: a study at one moment, as lines for a terminal of any width, or for a pipe.

Names and log lines are shown as they are: an escape sequence or markup in them is text.
"""

import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from batchscope.errors import counted
from batchscope.provenance.layout import Layout
from batchscope.provenance.plan_view import duration
from batchscope.provenance.stages import STAGES, subject_of, verb_of
from batchscope.watch.ahead import Forecaster, Left
from batchscope.watch.states import ENDED_BADLY, Job, Look, State, last_lines

LOG_LINES = 4
STYLES: dict[State, str] = {
    "done": "green",
    "running": "bold cyan",
    "waiting": "yellow",
    "stopped": "bold yellow",
    "killed": "bold red",
    "silent": "bold red",
    "failed": "bold red",
    "to do": "dim",
}
GLYPHS: dict[State, str] = {
    "done": "●",
    "running": "◐",
    "waiting": "◌",
    "stopped": "□",
    "killed": "✗",
    "silent": "?",
    "failed": "✗",
    "to do": "·",
}
COLUMNS: dict[str, tuple[State, ...]] = {
    "done": ("done",),
    "running": ("running",),
    "waiting": ("waiting",),
    "failed": ENDED_BADLY,
    "to do": ("to do",),
}
UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Categories of characters that have no shape of their own, or change those around them."""
BETWEEN_JOBS_SECONDS = 30.0
"""After the end of a job in which the workflow may be starting the next one."""
STALLED_SECONDS = 60.0
"""Without an update, after which a running training is said to stand still."""


class Frame(NamedTuple):
    """The sections of a frame, most important first."""

    head: list[Text]
    failures: list[list[Text]]
    """One per job."""
    running: list[list[Text]]
    """One per job."""
    stages: list[Text]
    trainings: list[Text]
    jobs: list[Text]
    """A line for every job; empty unless asked for."""

    def whole(self) -> list[Text]:
        """Every line."""
        parts = [self.head, _titled("did not finish", self.failures), _titled("at work", self.running), self.stages]
        return _joined([*parts, self.trainings, self.jobs])

    def within(self, height: int, width: int) -> list[Text]:
        """At most ``height`` lines; each section says how much of it is left out. Messages and logs are wrapped."""
        room = height - len(self.head)
        stages = self.stages if room >= len(self.stages) + 6 else []
        room -= len(stages) + bool(stages)
        wrapped = [[part for line in block for part in _wrapped(line, width)] for block in self.failures]
        failures = _cut(_titled("did not finish", wrapped), max(3, room // 2) if self.running else room - 1)
        room -= len(failures) + bool(failures)
        running = _cut(_titled("at work", self.running), room - 1)
        room -= len(running) + bool(running)
        parts = [self.head, failures, running, stages, _cut(self.trainings, room - 1)]
        return _joined(parts)[:height]


def frame_of(look: Look, layout: Layout, forecaster: Forecaster, every_job: bool = False) -> Frame:
    """The frame of a study."""
    bad = [job for job in look.active.values() if job.state in ENDED_BADLY]
    busy = [job for job in look.active.values() if job.state in ("running", "waiting")]
    return Frame(
        _head(look, layout, forecaster.left(look)),
        [_failure(job, layout) for job in sorted(bad, key=lambda job: (job.seconds, job.name))],
        [_at_work(job, look, forecaster) for job in sorted(busy, key=lambda job: (_order(job.name), job.name))],
        _stages(look),
        _trainings(look),
        _every_job(look) if every_job else [],
    )


def shown(text: str) -> str:
    """Text with every control, formatting or unassigned character as its escape, such as ``\\x1b``: harmless."""
    return "".join(
        character.encode("unicode_escape").decode("ascii") if unicodedata.category(character) in UNSEEN else character
        for character in text.replace("\t", " ")
    )


def ended_badly(look: Look) -> bool:
    """Whether a job failed, was stopped, or was killed."""
    return any(job.state in ENDED_BADLY for job in look.active.values())


def finished(look: Look) -> bool:
    """Whether every job is done."""
    return all(state == "done" for state in look.states.values())


# ------------------------------------------------------------------------------------------------------- sections


def _head(look: Look, layout: Layout, left: Left) -> list[Text]:
    counts, total = Counter(look.states.values()), len(look.states)
    trainings = [state for name, state in look.states.items() if verb_of(name) == "train"]
    done = counts["done"]
    title = Text.assemble(
        (shown(look.jobs.study), "bold"),
        f"  {shown(layout.study.as_posix())}  ",
        (time.strftime("%H:%M:%S"), "dim"),
    )
    bar = "█" * (20 * done // total) + "░" * (20 - 20 * done // total)
    line = Text.assemble((bar, "green"), f" {done:,} of {counted(total, 'job')}")
    line.append(f", {trainings.count('done'):,} of {counted(len(trainings), 'training')}")
    return [title, line, *map(Text, _left_in_words(look, left))]


def _left_in_words(look: Look, left: Left) -> list[str]:
    if finished(look):
        return ["Everything is done."]
    least = "at least " if left.unmeasured else "about "
    rest = f" with {counted(left.cores, 'core')}" if left.cores else ""
    rest += f", and {counted(left.unmeasured, 'job')} of unknown length" if left.unmeasured else ""
    busy = any(job.state in ("running", "waiting") for job in look.active.values())
    if not busy and look.since_last_end > BETWEEN_JOBS_SECONDS:
        idle = "Nothing is at work: start the workflow, or start it again."
        return [idle, f"Left: {least}{duration(left.seconds)}{rest}."] if left.seconds else [idle]
    if left.seconds is None:
        if not left.cores:
            return ["Time left: unknown, as no running job shows how many cores there are; `--cores N` says it."]
        return ["Time left: unknown until jobs like these have been measured."]
    return [f"Time left: {least}{duration(left.seconds)}{rest}."]


def _failure(job: Job, layout: Layout) -> list[Text]:
    log = layout.log(job.name)
    lines = [Text.assemble((f"{GLYPHS[job.state]} {shown(job.name)}", STYLES[job.state]), f"  {_ended(job)}")]
    if gone := _vanished(job):
        lines.append(Text(f"    {gone}"))
    message = job.process.get("message", "") if job.process else ""
    lines += [Text(f"    {shown(line)}") for line in message.splitlines()[:LOG_LINES]]
    lines.append(Text(f"    {shown(log.as_posix())}", "dim"))
    tail = [line for line in last_lines(log, LOG_LINES) if not _repeats(line, message)]
    return [*lines, *(Text(f"    │ {shown(line)}", "dim") for line in tail)]


def _repeats(line: str, message: str) -> bool:
    """Whether a log line says what was said: the message, behind the verb."""
    said = line.partition(": ")[2] if line.startswith("batchscope ") else line
    return bool(message) and said.strip() in message


def ended_in_words(job: Job) -> str:
    """How a job ended, when, and what is known of its process."""
    return f"{_ended(job)}: {gone}" if (gone := _vanished(job)) else _ended(job)


def _ended(job: Job) -> str:
    ago = f"{duration(job.seconds)} ago"
    if job.process is None:
        return f"failed: its log ends {ago}, without saying that it is done"
    far = f" after update {job.progress['update']:,}" if job.progress else ""
    return f"{'killed or cut off' if job.state == 'silent' else job.state}{far}, {ago}"


def _vanished(job: Job) -> str:
    """What is known of a process that could not say how it ended; empty for any other."""
    if job.process is None or job.state not in ("killed", "silent"):
        return ""
    where = f"process {job.process['pid']} on {shown(job.process['host'])}"
    where += f" (SLURM job {shown(job.process['slurm_job'])})" if "slurm_job" in job.process else ""
    if job.state == "killed":
        return f"{where} is gone, by SIGKILL, out of memory or in a crash"
    return f"{where} has not written since then, and it writes every few seconds"


def _at_work(job: Job, look: Look, forecaster: Forecaster) -> list[Text]:
    process, progress = job.process, job.progress
    where = f"  {shown(process['host'])}" if process else ""
    if process and progress is None and (seconds := time.time() - process["started"]) >= 1:
        where += f", for {duration(seconds)}" + (", starting" if process["phase"] == "starting" else "")
    lines = [Text.assemble((f"{GLYPHS[job.state]} {shown(job.name)}", STYLES[job.state]), (where, "dim"))]
    if progress is None:
        if job.state == "waiting":
            lines.append(Text("    waits for a device, or for another process that trains the same"))
        return lines
    total = forecaster.total(job.name, look.jobs)
    far = f"{progress['samples']:,} samples"
    if total:
        far = f"{progress['samples']:,} of {total:,} samples ({100 * progress['samples'] / total:.0f}%)"
    parts = [f"epoch {progress['epoch']}, {far}"]
    if progress["samples_per_second"]:
        parts.append(f"{progress['samples_per_second']:,.1f} samples/s")
    left = forecaster.training_left(job, look.jobs)
    if left is not None:
        parts.append(f"{duration(left)} left" if left else "trained: it measures the run")
    scores = f"loss {progress['loss']:.4f}, accuracy {progress['accuracy']:.4f}"
    if validation := progress.get("validation"):
        scores += f"; validation loss {validation['loss']:.4f}, accuracy {validation['accuracy']:.4f}"
    lines += [Text(f"    {', '.join(parts)}"), Text(f"    {scores}")]
    if progress["idle_seconds"] > STALLED_SECONDS:
        idle = duration(progress["idle_seconds"])
        lines.append(Text(f"    no update for {idle}: it validates, saves, measures, or hangs", "yellow"))
    return lines


def _stages(look: Look) -> list[Text]:
    counts: dict[str, Counter[State]] = {}
    for name, state in look.states.items():
        counts.setdefault(verb_of(name), Counter())[state] += 1
    wide = max(len(verb) for verb in counts)
    lines = [Text(f"{'stage':<{wide}}" + "".join(f" {name:>7}" for name in COLUMNS), "bold")]
    for verb in sorted(counts, key=_order):
        line = Text(f"{verb:<{wide}}")
        for states in COLUMNS.values():
            count = sum(counts[verb][state] for state in states)
            line.append(f" {count or '–':>7}", STYLES[states[0]] if count else "dim")
        lines.append(line)
    return lines


def _trainings(look: Look) -> list[Text]:
    """A line per cell of the grid, with a mark per seed."""
    cells: dict[str, list[State]] = {}
    for name, state in sorted(look.states.items(), key=lambda item: _natural(item[0])):
        if verb_of(name) == "train":
            cells.setdefault(subject_of(name).rpartition("/")[0], []).append(state)
    if not cells:
        return []
    there = [state for state in GLYPHS if any(state in states for states in cells.values())]
    legend = "  ".join(f"{GLYPHS[state]} {state}" for state in there)
    lines = [Text.assemble(("trainings, a mark per seed", "bold"), f"  {legend}")]
    for cell, states in cells.items():
        line = Text()
        for state in states:
            line.append(GLYPHS[state], STYLES[state])
        lines.append(line.append(f"  {shown(cell)}"))
    return lines


def _every_job(look: Look) -> list[Text]:
    names = sorted(look.states, key=lambda name: (_order(name), _natural(name)))
    return [Text.assemble((f"{look.states[name]:<8}", STYLES[look.states[name]]), f" {shown(name)}") for name in names]


def _order(name: str) -> int:
    return list(STAGES).index(verb_of(name)) if verb_of(name) in STAGES else len(STAGES)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts bs64 before bs256."""
    return [(int(digits or 0), letters) for letters, digits in _runs(name)]


def _runs(name: str) -> Iterable[tuple[str, str]]:
    for part in name.split("/"):
        letters = part.rstrip("0123456789")
        yield letters, part[len(letters) :]


def _titled(title: str, blocks: Sequence[list[Text]]) -> list[Text]:
    if not blocks:
        return []
    return [Text(f"{counted(len(blocks), 'job')} {title}", "bold"), *(line for block in blocks for line in block)]


def _wrapped(line: Text, width: int) -> list[Text]:
    """An indented line, in pieces of at most ``width`` cells with the same indentation; others as they are."""
    indent = len(line.plain) - len(line.plain.lstrip(" │"))
    if not indent or line.cell_len <= width or width < 4 * indent:
        return [line]
    lead = line.plain[:indent]
    pieces = line[indent:].wrap(Console(), width - indent)
    return [Text(lead, line.style).append_text(piece) for piece in pieces]


def _cut(lines: list[Text], most: int) -> list[Text]:
    """The first lines of a section, and how many are left out."""
    if len(lines) <= most:
        return lines
    if most < 2:
        return []
    return [*lines[: most - 1], Text(f"… {counted(len(lines) - most + 1, 'more line')}", "dim")]


def _joined(sections: Sequence[list[Text]]) -> list[Text]:
    """The sections with an empty line between them."""
    lines: list[Text] = []
    for section in sections:
        if section:
            lines += [*([Text()] if lines else []), *section]
    return lines
