"""Weights & Biases, kept at arm's length: what it does or fails to do never reaches the training.

One training is one run there, with an id made of the study, the run's path and the training's fingerprint. A line of
``history.jsonl`` is a step of it, by its number. Whoever sends, live or afterwards, offers the history from its first
line, and what the run already has is skipped: after a retry there is neither a gap nor a repeat. ``history.jsonl``
stays the truth.

wandb runs in a process of its own (this module as a program), which a thread feeds from a queue. The training puts its
records into the queue and goes on. The first failure, whatever it is, becomes one warning and ends the tracking alone.
"""

import contextlib
import json
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

from batchscope.errors import UserError
from batchscope.files import read_json, read_json_lines, write_json
from batchscope.provenance.fingerprint import canonical_json, digest
from batchscope.provenance.layout import run_path
from batchscope.provenance.spec import Spec

START_SECONDS = 30.0
FINISH_SECONDS = 30.0
"""How long, at most, a training that is done waits for what is still to be sent."""
REPLAY_SECONDS = 600.0
REPLAY_LINES_PER_SECOND = 100.0
"""The same for a replay, which still has everything to send: so much for any, and a tenth of the usual rate."""
PATIENCE_AFTER_FAILURE = 10.0
LONGEST_NAME = 128
LONGEST_TAG = 64
"""Characters that Weights & Biases takes; it refuses a run with a longer tag."""

log = logging.getLogger("batchscope")


class TrackingSpec(Spec):
    """What a run's entry in Weights & Biases depends on besides its files: whose it is and what it is called."""

    mode: Literal["disabled", "offline", "online"]
    project: str
    entity: str | None = None
    """User or team; the user's default if unset."""
    study: str
    model: str
    batch: int
    policy: str
    budget: str | None = None
    """Set only where the study has several budgets."""
    seed: int


def track(spec: TrackingSpec, run_folder: Path, folder: Path, output: Path) -> None:
    """Replay a finished and evaluated training into its Weights & Biases run; write what became of it to ``output``.

    Offline, the run gets a new folder below ``folder``, which replaces the one that an earlier replay of this training
    left there. Online, the run on the server gets what it lacks.
    Raises UserError where Weights & Biases fails.
    """
    manifest = read_json(run_folder / "manifest.json")
    fingerprint = manifest["fingerprint"]
    if spec.mode == "disabled":
        raise UserError("tracking.mode: it is `disabled`; take `offline` or `online` to replay a run")
    if spec.mode == "offline":
        for stale in folder.glob(f"offline-run-*-{run_id(spec, fingerprint)}"):
            shutil.rmtree(stale)
    lines = read_json_lines(run_folder / "history.jsonl")
    seconds = REPLAY_SECONDS + len(lines) / REPLAY_LINES_PER_SECOND
    with Tracker(spec, manifest["spec"], fingerprint, folder, finish_seconds=seconds) as tracker:
        for line in lines:
            tracker.log(line)
        tracker.finish(_flat(read_json(run_folder / "train.json") | read_json(run_folder / "metrics.json")))
    if tracker.failure is not None:
        raise UserError(
            f"Weights & Biases did not take {_name(spec)}: {tracker.failure}\n"
            "Nothing else depends on it. The same command tries again; `tracking: {mode: offline}` needs no server."
        )
    write_json(output, tracker.outcome)


def run_id(settings: TrackingSpec, fingerprint: str) -> str:
    """The id of a training's run: the same at every start, another one for another study, path or fingerprint."""
    return digest(canonical_json([settings.study, _name(settings), fingerprint]))


def _name(settings: TrackingSpec) -> str:
    return run_path(settings.model, settings.batch, settings.policy, settings.budget, settings.seed)


def _flat(values: Mapping[str, object]) -> dict[str, Any]:
    """Nested values under one level of names, such as ``test/best/accuracy``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= {f"{key}/{name}": v for name, v in _flat(value).items()} if isinstance(value, Mapping) else {key: value}
    return flat


class Tracker:
    """Sends a training's records to Weights & Biases; a context manager around the training or the replay.

    ``settings`` say whose run it is, ``spec`` is the training's spec as a dict, ``folder`` receives wandb's files.
    ``earlier`` is the file to which the training appends its history: a resumed one has lines from before its first
    record. With the mode ``disabled`` nothing happens. Afterwards ``outcome`` tells of the run, or ``failure`` why
    there is none.
    """

    def __init__(
        self,
        settings: TrackingSpec,
        spec: Mapping[str, object],
        fingerprint: str,
        folder: Path,
        earlier: Path | None = None,
        finish_seconds: float = FINISH_SECONDS,
    ) -> None:
        self.outcome: dict[str, Any] = {}
        self.failure: str | None = None
        self._earlier = earlier
        self._patience = START_SECONDS + finish_seconds + 30
        self._summary: dict[str, Any] = {}
        self._on = settings.mode != "disabled"
        self._start: dict[str, Any] = {}
        if self._on:
            self._start = {
                "settings": settings.plain(),
                "spec": dict(spec),
                "identity": run_id(settings, fingerprint),
                "folder": str(folder),
                "finish_seconds": finish_seconds,
            }
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._feed, name="tracker", daemon=True)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        if self._on:
            self._queue.put(self._start)
            self._thread.start()
        return self

    def log(self, record: Mapping[str, object]) -> None:
        """Take one record of ``history.jsonl``; the first brings the lines before it. Returns soon, raises nothing."""
        if not self._on:
            return
        if self._earlier is not None:
            try:
                for line in lines_before(self._earlier, record):
                    self._queue.put({"record": line})
            except Exception as error:
                self._queue.put(None)
                self._give_up(f"{type(error).__name__}: {error}")
            self._earlier = None
        self._queue.put({"record": dict(record)})

    def finish(self, summary: Mapping[str, object]) -> None:
        """Values to show beside the run's name; sent when the context ends."""
        self._summary = dict(summary)

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if not self._on:
            return
        self._queue.put({"summary": self._summary, "exit_code": 0 if failure is None else 1})
        self._queue.put(None)
        self._thread.join(self._patience if failure is None else PATIENCE_AFTER_FAILURE)
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
                status = self._process.wait()
                last_words.seek(0)
                said = last_words.read().strip()
                if status == 0:
                    self.outcome = json.loads(said.splitlines()[-1])
                else:
                    self._give_up(said or f"its process ended with {status}")
        except Exception as error:
            self._give_up(f"{type(error).__name__}: {error}")

    def _give_up(self, reason: str) -> None:
        if self._on:
            self._on, self.failure = False, reason
            log.warning("Weights & Biases tracking stopped; the training does not need it. The reason: %s", reason)
        if self._process is not None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)


def lines_before(history: Path, first: Mapping[str, object]) -> Iterator[dict[str, object]]:
    """The lines of ``history`` before the record ``first``, which need not be written yet: those of earlier starts."""
    with history.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                return  # it is being written
            record = json.loads(line)
            if all(record[key] == first[key] for key in ("kind", "update")):
                return
            yield record


# ----------------------------------------------------------------------------------------- the process of its own


def main() -> None:
    """Read messages as JSON lines and pass them to wandb; the outcome, or an error's text, goes to standard output."""
    messages = map(json.loads, sys.stdin)
    try:
        start = next(messages)
        run = _start(**start)
        end: dict[str, Any] = {"summary": {}, "exit_code": 1}  # holds where the training was killed
        rows = run.starting_step
        for rows, record in enumerate(unsent(_records(messages, end), run.starting_step), run.starting_step + 1):
            run.log(_row(record), step=rows - 1, commit=True)
        run.summary.update(end["summary"])
        run.finish(exit_code=end["exit_code"])
        print(json.dumps(_outcome(run, start["folder"], rows)), flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(1)  # wandb's own exit hook waits without end for a service that hangs


def unsent(history: Iterable[dict[str, Any]], present: int) -> Iterator[dict[str, Any]]:
    """The records of a whole history that a run which has its first ``present`` ones still lacks."""
    return islice(history, present, None)


def _records(messages: Iterable[dict[str, Any]], end: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The records among the messages; the last message, which is none, goes into ``end``."""
    for message in messages:
        if "record" in message:
            yield message["record"]
        else:
            end.update(message)


def _outcome(run: Any, folder: str, rows: int) -> dict[str, Any]:
    return {
        "id": run.id,
        "name": run.name,
        "project": run.project,
        "mode": "offline" if run.offline else "online",
        "folder": str(_home(folder) / "wandb" / Path(run.dir).parent.name),
        "rows": rows,
        "url": run.url,
    }


def _home(folder: str) -> Path:
    """The folder in which wandb makes one called wandb."""
    return Path(folder).parent if Path(folder).name == "wandb" else Path(folder)


def _start(
    settings: Mapping[str, object], spec: Mapping[str, object], identity: str, folder: str, finish_seconds: float
) -> Any:
    import wandb

    tracking = TrackingSpec.read(settings)
    Path(folder).mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project=tracking.project,
        entity=tracking.entity,
        id=identity,
        resume="allow" if tracking.mode == "online" else None,  # offline there is nobody to ask
        name=shortened(_name(tracking), LONGEST_NAME),
        group=shortened(f"{tracking.study}/{tracking.model}", LONGEST_NAME),
        tags=[shortened(tag, LONGEST_TAG) for tag in _tags(tracking)],
        config=dict(spec),
        dir=_home(folder),
        mode=tracking.mode,
        settings=wandb.Settings(
            init_timeout=START_SECONDS,
            x_service_wait=START_SECONDS,
            finish_timeout=finish_seconds,
            finish_timeout_raises=True,
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


def _tags(settings: TrackingSpec) -> list[str]:
    tags = [f"batch={settings.batch}", f"policy={settings.policy}"]
    return [*tags, f"budget={settings.budget}"] if settings.budget else tags


def shortened(text: str, longest: int) -> str:
    """Text of at most so many characters; where it is cut, a hash at its end keeps different texts apart."""
    return text if len(text) <= longest else f"{text[: longest - 9]}~{digest(text)[:8]}"


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of ``history.jsonl`` under the names that Weights & Biases shows."""
    row = {axis: record[axis] for axis in ("update", "samples", "epoch")}
    if record["kind"] == "update":
        counts = ("kind", "correct", "examples")
        return row | {f"train/{key}": value for key, value in record.items() if key not in row and key not in counts}
    for key in ("accuracy", "loss"):
        if record["kind"] == "epoch":
            row[f"train/epoch_{key}"] = record["train"][key]
        row[f"validation/{key}"] = record["validation"][key]
    return row


if __name__ == "__main__":
    main()
