"""The verbs of Batchscope. Each reads files, writes files and knows nothing of the stages after it.

A verb imports its stage only when it is called, so that ``batchscope --help`` needs no torch, and returns the work
that is then to be done, so that its log can tell the work's time from that of the imports.
"""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from batchscope import __version__
from batchscope.errors import UserError
from batchscope.training.launch import is_rank, launch
from batchscope.training.stop import EXIT_STATUS, Stopped, deadline

log = logging.getLogger("batchscope")
STARTED = time.time() - time.process_time()  # of the process: what came before this line was CPU work


Work = Callable[[], None]


def corpus(arguments: argparse.Namespace) -> Work:
    """Read the reviews from their source, in one table."""
    from batchscope.data.corpus import build_corpus

    return lambda: build_corpus(arguments.spec, arguments.output)


def split(arguments: argparse.Namespace) -> Work:
    """Divide the reviews into train, validation and test."""
    from batchscope.data.split import make_split

    return lambda: make_split(arguments.spec, arguments.corpus, arguments.output)


def tokenize(arguments: argparse.Namespace) -> Work:
    """Turn the reviews into one model's tokens."""
    from batchscope.data.tokenize import tokenize as run

    return lambda: run(arguments.spec, arguments.corpus, arguments.split, arguments.output)


def audit(arguments: argparse.Namespace) -> Work:
    """Count what could mislead: class balance, truncation, duplicates within and across splits."""
    from batchscope.data.audit import audit as run

    tokens = {folder.name: folder for folder in arguments.tokens}
    return lambda: run(arguments.corpus, arguments.split, tokens, arguments.output)


def reviews(arguments: argparse.Namespace) -> Work:
    """Choose the reviews whose attention is drawn, the same for every run."""
    from batchscope.data.reviews import choose_reviews

    return lambda: choose_reviews(arguments.spec, arguments.corpus, arguments.split, arguments.output)


def train(arguments: argparse.Namespace) -> Work:
    """Train one run by gradient accumulation."""
    gpus = arguments.settings.get("gpus", 1)
    if gpus > 1 and not is_rank():
        return lambda: launch(gpus, sys.argv[1:])
    from batchscope.handover import prepare, requests_ahead
    from batchscope.tracking import Tracker
    from batchscope.training.device import use_threads
    from batchscope.training.loop import train as run
    from batchscope.training.spec import TrainSpec

    use_threads(arguments.threads)
    spec = TrainSpec(**arguments.spec)
    # Several ranks would wait for one; strict kernels give other bits than those of the later stages.
    ahead = arguments.ahead if gpus == 1 and spec.determinism is None else {}
    limit = deadline(arguments.runtime, STARTED)

    def prepare_later_stages(best: Path, last: Path) -> None:
        checkpoints, device = {"best": best, "last": last}, arguments.settings["device"]
        requests = requests_ahead(ahead, arguments.tokens, checkpoints, device, arguments.threads)
        prepare(requests, arguments.run, arguments.state / "ready", limit)

    def work() -> None:
        if os.environ.get("RANK", "0") != "0":
            arguments.settings["tracking"] = {"mode": "disabled"}
        with Tracker(arguments.settings, spec.to_dict(), arguments.tracking_folder) as tracker:
            run(
                spec,
                arguments.code,
                arguments.settings,
                arguments.tokens,
                arguments.run,
                arguments.state,
                observe=tracker.log,
                deadline=limit,
                before_publish=prepare_later_stages,
            )

    return work


def certify(arguments: argparse.Namespace) -> Work:
    """Prove a model's accumulated gradients against the full batch, and audit the installed peers."""
    from batchscope.training.certificate import certify as run
    from batchscope.training.device import use_threads
    from batchscope.training.verdict import terminal_table

    use_threads(arguments.threads)

    def work() -> None:
        certificate = run(arguments.spec, arguments.settings, arguments.tokens, arguments.output)
        print(terminal_table(certificate))
        if not certificate["passed"]:
            raise UserError(f"{certificate['verdict']}\nDo not trust trainings with these versions on this device.")

    return work


def evaluate(arguments: argparse.Namespace) -> Work:
    """Predict validation and test with the best and the last checkpoint of a run, and measure."""
    from batchscope.evaluation.evaluate import evaluate as run
    from batchscope.training.device import use_threads

    use_threads(arguments.threads)
    checkpoints = checkpoints_of(arguments.run)
    return lambda: run(arguments.spec, arguments.tokens, checkpoints, arguments.run, arguments.device)


def attention(arguments: argparse.Namespace) -> Work:
    """Compute the attention of a run's best checkpoint on the chosen reviews."""
    from batchscope.insight.attention import attend
    from batchscope.training.device import use_threads

    use_threads(arguments.threads)
    best = checkpoints_of(arguments.run)["best"]
    return lambda: attend(arguments.spec, arguments.tokens, arguments.reviews, best, arguments.run, arguments.device)


def maps(arguments: argparse.Namespace) -> Work:
    """Draw a run's attention maps."""
    from batchscope.report.maps import draw_maps

    return lambda: draw_maps(arguments.run, arguments.names)


def tables(arguments: argparse.Namespace) -> Work:
    """Compile the tables of a study."""
    from batchscope.report.tables import write_tables

    return lambda: write_tables(arguments.spec, arguments.study)


def figures(arguments: argparse.Namespace) -> Work:
    """Draw the figures of a study."""
    from batchscope.report.figures import draw_figures

    return lambda: draw_figures(arguments.spec, arguments.study)


def report(arguments: argparse.Namespace) -> Work:
    """Write the report of a study."""
    from batchscope.report.page import write_report

    return lambda: write_report(arguments.spec, arguments.study)


OPTIONS: dict[str, dict[str, Any]] = {
    "spec": {"type": json.loads, "metavar": "JSON", "help": "all that the result depends on besides the inputs"},
    "settings": {"type": json.loads, "metavar": "JSON", "help": "what the result does not depend on"},
    "ahead": {"type": json.loads, "default": {}, "metavar": "JSON", "help": "later stages to do in the same process"},
    "code": {"default": "", "metavar": "HASH", "help": "hash of the stage's code; part of the run's fingerprint"},
    "corpus": {"type": Path, "metavar": "PARQUET", "help": "corpus.parquet"},
    "split": {"type": Path, "metavar": "PARQUET", "help": "split.parquet"},
    "tokens": {"type": Path, "metavar": "FOLDER", "help": "tokens of the model"},
    "reviews": {"type": Path, "metavar": "JSON", "help": "reviews.json"},
    "run": {"type": Path, "metavar": "FOLDER", "help": "folder of the run"},
    "state": {"type": Path, "metavar": "FOLDER", "help": "folder for unfinished runs and results made ahead"},
    "tracking-folder": {"type": Path, "metavar": "FOLDER", "help": "folder for the tracker's files"},
    "study": {"type": Path, "metavar": "FOLDER", "help": "folder of the study"},
    "output": {"type": Path, "metavar": "PATH", "help": "file or folder to write"},
    "device": {"default": "auto", "choices": ["auto", "cpu", "cuda", "mps"], "help": "where the model runs"},
    "runtime": {"type": float, "required": False, "metavar": "MINUTES", "help": "wall-time limit of the job"},
    "threads": {"type": int, "required": False, "metavar": "N", "help": "CPU threads (all of them if not given)"},
    "names": {"nargs": "+", "metavar": "NAME", "help": "reviews to draw"},
}

VERBS = {
    corpus: ["spec", "output"],
    split: ["spec", "corpus", "output"],
    tokenize: ["spec", "corpus", "split", "output"],
    audit: ["corpus", "split", "tokens", "output"],
    reviews: ["spec", "corpus", "split", "output"],
    train: ["spec", "code", "settings", "ahead", "tokens", "run", "state", "tracking-folder", "runtime", "threads"],
    certify: ["spec", "settings", "tokens", "output", "threads"],
    evaluate: ["spec", "code", "tokens", "run", "state", "device", "threads"],
    attention: ["spec", "code", "tokens", "reviews", "run", "state", "device", "threads"],
    maps: ["run", "names"],
    tables: ["spec", "study"],
    figures: ["spec", "study"],
    report: ["spec", "study"],
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="batchscope",
        description="What does the target batch size really do when you fine-tune a text encoder? The verbs below are "
        "the steps of the workflow, which `snakemake` calls for you.",
    )
    top.add_argument("--version", action="version", version=f"batchscope {__version__}")
    verbs = top.add_subparsers(title="verbs", metavar="VERB", required=True)
    for run, options in VERBS.items():
        verb = verbs.add_parser(run.__name__, help=run.__doc__, description=run.__doc__)
        verb.set_defaults(run_verb=run)
        for option in options:
            keywords = OPTIONS[option]
            if run is audit and option == "tokens":
                keywords = keywords | {"nargs": "+", "help": "tokens of each model"}
            verb.add_argument(f"--{option}", **{"required": "default" not in keywords} | keywords)
    return top


def devices_for(arguments: argparse.Namespace) -> AbstractContextManager[object]:
    """A lease on the GPUs of a verb that runs a model, to be taken before torch sees them; nothing for the others."""
    options = getattr(arguments, "settings", None) or vars(arguments)
    if "device" not in options or is_rank():
        return nullcontext()
    from batchscope.training.lease import leased_devices

    return leased_devices(options["device"], options.get("gpus", 1))


def checkpoints_of(run: Path) -> dict[str, Path]:
    """The checkpoints of a finished run that later stages read."""
    return {name: run / "checkpoints" / f"{name}.safetensors" for name in ("best", "last")}


def done_ahead(arguments: argparse.Namespace) -> bool:
    """Whether the run's training left this verb's result; it is then in its place, without torch or a device."""
    if arguments.run_verb not in (evaluate, attention):
        return False
    from batchscope.handover import Request, collect

    request = Request(
        stage=arguments.run_verb.__name__,
        spec=arguments.spec,
        code=arguments.code,
        tokens=arguments.tokens,
        checkpoints=checkpoints_of(arguments.run),
        device=arguments.device,
        threads=arguments.threads,
        reviews=getattr(arguments, "reviews", None),
    )
    return collect(request, arguments.run, arguments.state / "ready")


def run_verb(arguments: argparse.Namespace) -> None:
    """Do a verb's work; log its seconds, and those from the start of the process to the start of the work."""
    began = time.time()
    if not done_ahead(arguments):
        with devices_for(arguments):
            work = arguments.run_verb(arguments)
            began = time.time()
            work()
    seconds, start_up = time.time() - began, began - STARTED
    log.info(f"batchscope {arguments.run_verb.__name__}: done in {seconds:.2f} s (start-up {start_up:.2f} s)")


def main(argv: list[str] | None = None) -> None:
    """Run a verb. A mistake of the user's ends with one message and exit status 1."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    for noisy in ("httpx", "datasets", "matplotlib", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own
    verb = arguments.run_verb.__name__
    try:
        run_verb(arguments)
    except UserError as error:
        sys.exit(f"batchscope {verb}: {error}")
    except Stopped as reason:
        print(f"batchscope {verb}: {reason}", file=sys.stderr)
        sys.exit(EXIT_STATUS)
    except OSError as error:
        if error.errno is None:
            raise
        sys.exit(f"batchscope {verb}: {error.strerror}: {error.filename or 'while writing'}")
