"""Weights & Biases, kept at arm's length: what it does or fails to do never reaches the training.

All of wandb runs in a thread of its own, fed by a queue. The training puts its records there and goes on; the first
failure, whatever it is, becomes one warning and ends the tracking alone. ``history.jsonl`` is the truth either way.
"""

import logging
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

START_SECONDS = 30.0
FINISH_SECONDS = 60.0

log = logging.getLogger("batchscope")


class Tracker:
    """Sends a training's records to Weights & Biases, live; a context manager around the training.

    ``settings`` are those of ``Study.settings``, ``spec`` is the training's spec as a dict, ``folder`` receives wandb's
    files. With the mode ``disabled`` nothing happens and wandb is not imported.
    """

    def __init__(self, settings: Mapping[str, Any], spec: Mapping[str, Any], folder: Path) -> None:
        self._settings = settings
        self._spec = dict(spec)
        self._folder = folder
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._summary: dict[str, Any] = {}
        self._exit_code = 0
        self._on = settings["tracking"]["mode"] != "disabled"
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)

    def __enter__(self) -> Self:
        if self._on:
            self._thread.start()
        return self

    def log(self, record: Mapping[str, Any]) -> None:
        """Take one record of ``history.jsonl``. Returns at once, raises nothing."""
        if self._on:
            self._queue.put(_row(record))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Values to show beside the run's name; sent when the context ends."""
        self._summary = dict(summary)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._on:
            self._exit_code = 0 if kind is None else 1
            self._queue.put(None)
            self._thread.join(START_SECONDS + 2 * FINISH_SECONDS)
            if self._thread.is_alive():
                self._give_up("it does not answer")

    def _give_up(self, reason: object) -> None:
        if self._on:
            self._on = False
            log.warning("Weights & Biases tracking stopped, the training does not need it: %s", reason)

    # ----------------------------------------------------------------------------------------- in the thread

    def _work(self) -> None:
        try:
            with_wandb = self._start()
            while (row := self._queue.get()) is not None:
                with_wandb.log(row)
            with_wandb.summary.update(self._summary)
            with_wandb.finish(exit_code=self._exit_code)
        except (Exception, SystemExit) as error:
            self._give_up(f"{type(error).__name__}: {error}")

    def _start(self) -> Any:
        import wandb

        tracking = self._settings["tracking"]
        study, model, batch, policy, seed = (self._settings[key] for key in ("study", "model", "batch", "policy", "seed"))
        self._folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=tracking["project"],
            entity=tracking.get("entity"),
            name=f"{model}/bs{batch}/{policy}/seed{seed}",
            group=f"{study}/{model}",
            tags=[f"batch={batch}", f"policy={policy}"],
            config=self._spec,
            dir=str(self._folder),
            mode=tracking["mode"],
            settings=wandb.Settings(
                init_timeout=START_SECONDS,
                x_service_wait=START_SECONDS,
                login_timeout=1,
                finish_timeout=FINISH_SECONDS,
                console="off",
                silent=True,
                # The manifest records the code and the machine; none of it leaves this house unasked.
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
        # Every row carries `update`, `samples` and `epoch`, so a chart's axis can be any of the three.
        for axis in ("update", "samples", "epoch"):
            run.define_metric(axis, summary="max")
        run.define_metric("train/*", step_metric="update")
        run.define_metric("validation/*", step_metric="update")
        run.define_metric("validation/accuracy", step_metric="update", summary="max")
        run.define_metric("validation/loss", step_metric="update", summary="min")
        return run


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of ``history.jsonl`` under the names shown in Weights & Biases."""
    axes = {axis: record[axis] for axis in ("update", "samples", "epoch")}
    if record["kind"] == "update":
        values = {key: value for key, value in record.items() if key not in {*axes, "kind", "correct", "examples"}}
        return axes | {f"train/{key}": value for key, value in values.items()}
    return axes | {
        name: record[split][key]
        for split, prefix in (("train", "train/epoch_"), ("validation", "validation/"))
        for key in ("accuracy", "loss")
        for name in [f"{prefix}{key}"]
    }
