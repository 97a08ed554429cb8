"""Weights & Biases, kept at arm's length: what it does or fails to do never reaches the training.

wandb runs in a process of its own (this module as a program), which a thread feeds from a queue. The training puts its
records into the queue and goes on. The first failure, whatever it is, becomes one warning and ends the tracking alone;
``history.jsonl`` stays the truth. A training that is killed leaves a run that is complete up to there.
"""

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

START_SECONDS = 30.0
FINISH_SECONDS = 30.0
PATIENCE = START_SECONDS + FINISH_SECONDS + 30.0
"""How long, at most, a training that is done waits for its tracker."""
PATIENCE_AFTER_FAILURE = 10.0

log = logging.getLogger("batchscope")


class Tracker:
    """Sends a training's records to Weights & Biases, live; a context manager around the training.

    ``settings`` are those of ``Study.settings``, ``spec`` is the training's spec as a dict, ``folder`` receives wandb's
    files. With the mode ``disabled`` nothing happens.
    """

    def __init__(self, settings: Mapping[str, Any], spec: Mapping[str, Any], folder: Path) -> None:
        self._start = {"settings": dict(settings), "spec": dict(spec), "folder": str(folder)}
        self._summary: dict[str, Any] = {}
        self._on = settings["tracking"]["mode"] != "disabled"
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._feed, name="tracker", daemon=True)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        if self._on:
            self._queue.put(self._start)
            self._thread.start()
        return self

    def log(self, record: Mapping[str, Any]) -> None:
        """Take one record of ``history.jsonl``. Returns at once, raises nothing."""
        if self._on:
            self._queue.put({"record": dict(record)})

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Values to show beside the run's name; sent when the context ends."""
        self._summary = dict(summary)

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if not self._on:
            return
        self._queue.put({"summary": self._summary, "exit_code": 0 if failure is None else 1})
        self._queue.put(None)
        self._thread.join(PATIENCE if failure is None else PATIENCE_AFTER_FAILURE)
        if self._thread.is_alive():
            self._give_up("it does not answer")

    def _feed(self) -> None:
        """Start the process, write the queue's messages to it as JSON lines, and see how it ended."""
        try:
            with tempfile.TemporaryFile("w+", encoding="utf-8") as last_words:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "batchscope.tracking"],
                    stdin=subprocess.PIPE,
                    stdout=last_words,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    start_new_session=True,  # so that Ctrl-C reaches the training alone, which then ends the tracker
                )
                assert self._process.stdin is not None
                with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
                    while (message := self._queue.get()) is not None:
                        pipe.write(json.dumps(message) + "\n")
                        pipe.flush()
                if self._process.wait() != 0:
                    last_words.seek(0)
                    self._give_up(last_words.read().strip() or f"its process ended with {self._process.returncode}")
        except Exception as error:
            self._give_up(f"{type(error).__name__}: {error}")

    def _give_up(self, reason: str) -> None:
        if self._on:
            self._on = False
            log.warning("Weights & Biases tracking stopped; the training does not need it. The reason: %s", reason)
        if self._process is not None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)


# ----------------------------------------------------------------------------------------- the process of its own


def main() -> None:
    """Read messages as JSON lines and pass them to wandb; an error's text goes to standard output."""
    messages = map(json.loads, sys.stdin)
    try:
        run = _start(**next(messages))
        end: dict[str, Any] = {"summary": {}, "exit_code": 1}  # holds where the training was killed
        for message in messages:
            if "record" in message:
                run.log(_row(message["record"]))
            else:
                end = message
        run.summary.update(end["summary"])
        run.finish(exit_code=end["exit_code"])
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(1)  # wandb's own exit hook waits without end for a service that hangs


def _start(settings: Mapping[str, Any], spec: Mapping[str, Any], folder: str) -> Any:
    import wandb

    tracking, own = settings["tracking"], Path(folder)
    own.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project=tracking["project"],
        entity=tracking.get("entity"),
        name=f"{settings['model']}/bs{settings['batch']}/{settings['policy']}/seed{settings['seed']}",
        group=f"{settings['study']}/{settings['model']}",
        tags=[f"batch={settings['batch']}", f"policy={settings['policy']}"],
        config=dict(spec),
        dir=own.parent if own.name == "wandb" else own,  # in which wandb makes a folder called wandb
        mode=tracking["mode"],
        settings=wandb.Settings(
            init_timeout=START_SECONDS,
            x_service_wait=START_SECONDS,
            finish_timeout=FINISH_SECONDS,
            login_timeout=1,
            console="off",
            silent=True,
            # Code and machine are in the manifest, and stay in the house.
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_save_requirements=False,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_disable_stats=True,
            host="",
        ),
    )
    # Every row carries all three, so that a chart can be drawn over any of them; `update` is the one to begin with.
    for axis in ("update", "samples", "epoch"):
        run.define_metric(axis, summary="max")
    run.define_metric("train/*", step_metric="update")
    run.define_metric("validation/accuracy", step_metric="update", summary="max")
    run.define_metric("validation/loss", step_metric="update", summary="min")
    return run


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of ``history.jsonl`` under the names that Weights & Biases shows."""
    row = {axis: record[axis] for axis in ("update", "samples", "epoch")}
    if record["kind"] == "update":
        counts = ("kind", "correct", "examples")
        return row | {f"train/{key}": value for key, value in record.items() if key not in row and key not in counts}
    for key in ("accuracy", "loss"):
        row[f"train/epoch_{key}"] = record["train"][key]
        row[f"validation/{key}"] = record["validation"][key]
    return row


if __name__ == "__main__":
    main()
