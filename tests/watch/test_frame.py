"""A frame of `watch`: hostile text is text, and a small terminal shows what matters most."""

import io
import time
from pathlib import Path

import pytest
from jobs import RUN, Jobs, jobs_of
from processes import process
from rich.console import Console
from small import tiny_config

from batchscope.files import write_json, write_text
from batchscope.watch.ahead import Forecaster
from batchscope.watch.frame import Frame, frame_of, shown
from batchscope.watch.live import _fitted
from batchscope.watch.states import Watcher

EVIL = "\x1b[2J\x1b[31m[red]gone[/red] \u202ecod \x07\x9b5m 評価 :smile: {x}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("[red]x[/red] :smile:", "[red]x[/red] :smile:"),
        ("a\u202eb\u2028c\x9bd\x00\x7f", "a\\u202eb\\u2028c\\x9bd\\x00\\x7f"),
        ("naïve 評価 שלום √", "naïve 評価 שלום √"),
        ("a\tb", "a b"),
    ],
)
def test_control_characters_are_shown_and_markup_is_text(text: str, expected: str) -> None:
    assert shown(text) == expected


def frame(jobs: Jobs, **options: bool) -> Frame:
    return frame_of(Watcher(jobs.layout).look(), jobs.layout, Forecaster(), **options)


def written(lines: object, width: int, terminal: bool) -> str:
    """What a terminal of this width, or a pipe, gets."""
    file = io.StringIO()
    console = Console(file=file, width=width, height=24, force_terminal=terminal, markup=False, highlight=False)
    console.print(lines)
    return file.getvalue()


def failing_study(folder: Path, trainings: int = 1) -> Jobs:
    jobs = jobs_of(folder, tiny_config(seeds=list(range(1, trainings + 1))))
    for number in range(1, trainings + 1):
        name = f"train/bert/bs16/constant/seed{number}"
        write_json(jobs.layout.process(name), process(jobs, phase="failed", message=EVIL, host=EVIL, slurm_job=EVIL))
        write_text(jobs.layout.log(name), f"{EVIL}\n[bold]markup[/bold]\n")
    return jobs


@pytest.mark.parametrize("terminal", [True, False])
def test_no_escape_sequence_of_a_log_or_message_reaches_the_terminal(tmp_path: Path, terminal: bool) -> None:
    jobs = failing_study(tmp_path)
    out = "".join(written(line, 200, terminal) for line in frame(jobs).whole())
    assert "\\x1b[2J\\x1b[31m[red]gone[/red] \\u202ecod \\x07\\x9b5m 評価 :smile: {x}" in out
    assert "[bold]markup[/bold]" in out
    assert not any(evil in out for evil in ("\x1b[2J", "\u202e", "\x07", "\x9b", "\x1b[31m[red]"))


@pytest.mark.parametrize(("width", "height"), [(24, 10), (40, 16), (80, 24), (200, 60)])
def test_a_terminal_of_any_size_gets_no_more_than_it_has_room_for(tmp_path: Path, width: int, height: int) -> None:
    jobs = failing_study(tmp_path, trainings=12)
    file = io.StringIO()
    console = Console(file=file, width=width, height=height, force_terminal=False, markup=False, highlight=False)
    console.print(_fitted(frame(jobs), console))
    lines = file.getvalue().splitlines()
    assert len(lines) < height and max(map(len, lines)) <= width
    assert "12 jobs did not" in file.getvalue()
    assert "more line" in file.getvalue() or height == 60


def test_a_pipe_gets_every_job_if_asked(tmp_path: Path) -> None:
    jobs = failing_study(tmp_path, trainings=2)
    assert not frame(jobs).jobs
    lines = [line.plain for line in frame(jobs, every_job=True).jobs]
    assert f"failed   train/{RUN}" in lines and "to do    corpus" in lines
    assert len(lines) == len(Watcher(jobs.layout).look().states)


def test_the_trainings_of_a_cell_are_marks_in_one_line(tmp_path: Path) -> None:
    jobs = failing_study(tmp_path, trainings=11)
    lines = [line.plain for line in frame(jobs).trainings]
    assert lines[0] == "trainings, a mark per seed  ✗ failed  · to do"
    assert lines[1:] == [
        "✗✗✗✗✗✗✗✗✗✗✗  bert/bs16/constant",
        "···········  bert/bs40/constant",
        "···········  modernbert/bs16/constant",
        "···········  modernbert/bs40/constant",
    ]


def test_a_long_message_is_wrapped_and_not_cut_off(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, tiny_config(seeds=[1]))
    message = "the disk is full: free some space below results/, then start the workflow again, which resumes " * 2
    write_json(jobs.layout.process(f"train/{RUN}"), process(jobs, phase="failed", message=message.strip()))
    file = io.StringIO()
    console = Console(file=file, width=80, height=24, force_terminal=False, markup=False, highlight=False)
    console.print(_fitted(frame(jobs), console))
    assert " ".join(message.split()) in " ".join(file.getvalue().split())


def test_between_two_jobs_nobody_is_told_to_start_the_workflow(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, tiny_config())
    jobs.file()
    look = Watcher(jobs.layout).look()
    idle, between = (
        frame_of(look._replace(since_last_end=seconds), jobs.layout, Forecaster()).head for seconds in (31, 29)
    )
    assert "Nothing is at work" in idle[2].plain
    assert between[2].plain.startswith("Time left:") and "`--cores N`" in between[2].plain


@pytest.mark.parametrize(("phase", "ending"), [("starting", "for 30 s, starting"), ("working", "for 30 s")])
def test_a_job_says_that_it_is_only_starting(tmp_path: Path, phase: str, ending: str) -> None:
    jobs = jobs_of(tmp_path, tiny_config(seeds=[1]))
    write_json(jobs.layout.process(f"train/{RUN}"), process(jobs, phase=phase, started=time.time() - 30))
    ((line,),) = frame(jobs).running
    assert line.plain.endswith(ending)
