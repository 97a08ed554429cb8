"""``batchscope watch``: frames of a study in a terminal until it is done, or one frame as text."""

import io
import sys
import time
from contextlib import suppress
from typing import NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from batchscope.provenance.layout import Layout
from batchscope.watch.ahead import Forecaster
from batchscope.watch.frame import Frame, ended_badly, finished, frame_of
from batchscope.watch.states import CONFIRMING_SECONDS, Look, Watcher

BUSY_SHARE = 0.1
"""Of one core, at most, goes into looking."""


class Options(NamedTuple):
    """What a person asks for."""

    once: bool = False
    every_job: bool = False
    """A line for every job, in one frame as text."""
    cores: int | None = None
    every: float = 2.0
    """Seconds between two looks, at least."""


def watch(layout: Layout, options: Options) -> bool:
    """Show a study until everything is done, or once; whether a job failed, was stopped or was killed.

    Raises UserError where the study has no job file.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that cannot show a character shows a question mark
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False, markup=False, emoji=False)
    watcher, forecaster = Watcher(layout), Forecaster(options.cores)
    if options.once or options.every_job or not console.is_terminal:
        look = _settled(watcher)
        _print(console, frame_of(look, layout, forecaster, options.every_job))
        return ended_badly(look)
    look = watcher.look()
    with suppress(KeyboardInterrupt), Live(console=console, screen=True, auto_refresh=False) as live:
        while not finished(look):
            began = time.process_time()
            look = watcher.look()
            frame = frame_of(look, layout, forecaster)
            live.update(_fitted(frame, console), refresh=True)
            time.sleep(max(options.every, (time.process_time() - began) / BUSY_SHARE))
    _print(console, frame_of(look, layout, forecaster))
    return ended_badly(look)


def _settled(watcher: Watcher) -> Look:
    """A look that is sure whether processes on other machines live."""
    look = watcher.look()
    if look.doubtful:
        time.sleep(CONFIRMING_SECONDS)
        look = watcher.look()
    return look


def _print(console: Console, frame: Frame) -> None:
    """Every line; long ones go on in the next."""
    for line in frame.whole():
        console.print(line, soft_wrap=not console.is_terminal)


def _fitted(frame: Frame, console: Console) -> Group:
    """The lines that the terminal has room for, each within its width."""
    lines: list[Text] = []
    for line in frame.within(console.height - 1, console.width):
        line.truncate(console.width, overflow="ellipsis")
        line.no_wrap = True
        lines.append(line)
    return Group(*lines)
