"""The verbs of Batchscope. Each reads files, writes files and knows nothing of the stages after it.

A verb imports its stage only when it is called, so that ``batchscope --help`` needs no torch, and returns the work
that is then to be done, so that its log can tell the work's time from that of the imports.
"""

import argparse
import gc
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from batchscope import __version__
from batchscope.errors import UserError
from batchscope.files import write_json
from batchscope.provenance.fingerprint import is_code
from batchscope.provenance.stages import STAGES, with_places, write_record
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
    from batchscope.provenance.manifests import tokens_manifest
    from batchscope.provenance.reuse import TOKENS, hashes, reuse

    def work() -> None:
        manifest = tokens_manifest(arguments.spec, arguments.code, arguments.corpus, arguments.split)
        found = arguments.results and reuse(arguments.output, manifest["fingerprint"], arguments.results, TOKENS)
        if found:
            log.info(f"the same tokens stand in {found}: taken from there")
            return
        run(arguments.spec, arguments.corpus, arguments.split, arguments.output)
        files = {"files": hashes(arguments.output), "reused_from": None}
        write_json(arguments.output / "manifest.json", manifest | files)

    return work


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
    """Train one run by gradient accumulation, unless a finished one with the same fingerprint is found."""
    gpus = arguments.settings.get("gpus", 1)
    if gpus > 1 and not is_rank():
        return lambda: launch(gpus, sys.argv[1:])
    from batchscope.hardware.device import use_threads
    from batchscope.provenance.handover import prepare, requests_ahead
    from batchscope.provenance.manifests import run_fingerprint
    from batchscope.tracking import Tracker
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
        # Offline, the `track` rule replays the history when the training is done.
        if arguments.settings["tracking"]["mode"] != "online" or os.environ.get("RANK", "0") != "0":
            arguments.settings["tracking"] = {"mode": "disabled"}
        fingerprint = run_fingerprint(spec, arguments.code, arguments.tokens)
        earlier = arguments.state / fingerprint / "history.jsonl"
        with Tracker(arguments.settings, spec.to_dict(), fingerprint, arguments.tracking_folder, earlier) as tracker:
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
    from batchscope.certificate.certify import certify as run
    from batchscope.certificate.verdict import terminal_table
    from batchscope.hardware.device import use_threads

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
    from batchscope.hardware.device import use_threads

    use_threads(arguments.threads)
    checkpoints = checkpoints_of(arguments.run)
    return lambda: run(arguments.spec, arguments.tokens, checkpoints, arguments.run, arguments.device)


def track(arguments: argparse.Namespace) -> Work:
    """Replay a finished run into Weights & Biases; nothing else depends on it."""
    from batchscope.tracking import track as run

    return lambda: run(arguments.spec, arguments.run, arguments.tracking_folder, arguments.output)


def attention(arguments: argparse.Namespace) -> Work:
    """Compute the attention of a run's best checkpoint on the chosen reviews."""
    from batchscope.hardware.device import use_threads
    from batchscope.insight.attention import attend

    use_threads(arguments.threads)
    best = checkpoints_of(arguments.run)["best"]
    return lambda: attend(arguments.spec, arguments.tokens, arguments.reviews, best, arguments.run, arguments.device)


def maps(arguments: argparse.Namespace) -> Work:
    """Draw a run's attention maps."""
    from batchscope.report.maps import draw_maps

    return lambda: draw_maps(arguments.run, arguments.spec["names"], arguments.output)


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


def fetch(arguments: argparse.Namespace) -> Work:
    """Download a study's models and data into a cache, for jobs on nodes without a network."""
    from batchscope.data.fetch import fetch as run

    return lambda: run(arguments.configfile, arguments.cache)


def plan(arguments: argparse.Namespace) -> Work:
    """Show what the workflow would run now and why, what it finds finished, and how long it will take."""
    from batchscope.provenance.forecast import forecast
    from batchscope.provenance.plan import as_json, as_table, planned_jobs

    def work() -> None:
        jobs = planned_jobs(arguments.configfile, arguments.SNAKEMAKE)
        forecast(jobs)
        print(as_json(jobs) if arguments.json else as_table(jobs))

    return work


def verify(arguments: argparse.Namespace) -> Work:
    """Compute a run's metrics again from its checkpoints, and compare them and every hash with what is recorded."""
    from batchscope.hardware.device import use_threads
    from batchscope.provenance.verify import runs_of, table, verify_run

    use_threads(arguments.threads)

    def work() -> None:
        folder = arguments.FOLDER
        results = {run: verify_run(run, arguments.device) for run in (runs_of(folder) if arguments.all else [folder])}
        print(table(results))
        wrong = [run for run, checks in results.items() if not all(check.passed for check in checks)]
        if wrong:
            raise UserError(f"{len(wrong)} of {len(results)} runs are not what they say: {', '.join(map(str, wrong))}")

    return work


OPTIONS: dict[str, dict[str, Any]] = {
    "spec": {"type": json.loads, "metavar": "JSON", "help": "all that the result depends on besides the inputs"},
    "settings": {"type": json.loads, "default": "{}", "metavar": "JSON", "help": "what the result does not depend on"},
    "ahead": {"type": json.loads, "default": {}, "metavar": "JSON", "help": "later stages to do in the same process"},
    "code": {"default": "", "metavar": "HASH", "help": "hash of the stage's code, as the Snakefile saw it"},
    "corpus": {"type": Path, "metavar": "PARQUET", "help": "corpus.parquet"},
    "split": {"type": Path, "metavar": "PARQUET", "help": "split.parquet"},
    "tokens": {"type": Path, "metavar": "FOLDER", "help": "tokens of the model"},
    "reviews": {"type": Path, "metavar": "JSON", "help": "reviews.json"},
    "run": {"type": Path, "metavar": "FOLDER", "help": "folder of the run"},
    "state": {"type": Path, "metavar": "FOLDER", "help": "folder for the states of unfinished runs"},
    "tracking-folder": {"type": Path, "metavar": "FOLDER", "help": "folder for the tracker's files"},
    "study": {"type": Path, "metavar": "FOLDER", "help": "folder of the study"},
    "results": {"type": Path, "default": None, "metavar": "FOLDER", "help": "where to look for the same, finished"},
    "output": {"type": Path, "metavar": "PATH", "help": "file or folder to write"},
    "device": {"default": "auto", "choices": ["auto", "cpu", "cuda", "mps"], "help": "where the model runs"},
    "runtime": {"type": float, "required": False, "metavar": "MINUTES", "help": "wall-time limit of the job"},
    "threads": {"type": int, "required": False, "metavar": "N", "help": "CPU threads (all of them if not given)"},
    "configfile": {"type": Path, "nargs": "+", "default": [], "metavar": "YAML", "help": "as for snakemake"},
    "json": {"action": "store_true", "default": False, "help": "for machines"},
    "SNAKEMAKE": {"nargs": "*", "help": "after --: further arguments for snakemake"},
    "FOLDER": {"type": Path, "help": "folder of a run; with --all that of a study"},
    "all": {"action": "store_true", "default": False, "help": "every finished run of the study"},
    "cache": {"type": Path, "required": False, "metavar": "FOLDER", "help": "instead of HF_HOME"},
    "record": {"type": Path, "default": None, "metavar": "JSON", "help": "where to note the spec and the code"},
}

VERBS = {
    corpus: ["spec", "settings", "output", "code", "record"],
    split: ["spec", "corpus", "output", "code", "record"],
    tokenize: ["spec", "settings", "corpus", "split", "output", "results", "code", "record"],
    audit: ["corpus", "split", "tokens", "output", "code", "record"],
    reviews: ["spec", "corpus", "split", "output", "code", "record"],
    train: [
        "spec",
        "settings",
        "ahead",
        "tokens",
        "run",
        "state",
        "tracking-folder",
        "runtime",
        "threads",
        "results",
        "code",
        "record",
    ],
    certify: ["spec", "settings", "tokens", "output", "threads", "code", "record"],
    evaluate: ["spec", "tokens", "run", "state", "device", "threads", "code", "record"],
    track: ["spec", "run", "tracking-folder", "output", "code", "record"],
    attention: ["spec", "tokens", "reviews", "run", "state", "device", "threads", "code", "record"],
    maps: ["spec", "run", "output", "code", "record"],
    tables: ["spec", "study", "code", "record"],
    figures: ["spec", "study", "code", "record"],
    report: ["spec", "study", "code", "record"],
    plan: ["configfile", "json", "SNAKEMAKE"],
    fetch: ["configfile", "cache"],
    verify: ["FOLDER", "all", "device", "threads"],
}

EXCEPTIONS: dict[tuple[Any, str], dict[str, Any]] = {
    (audit, "tokens"): {"nargs": "+", "help": "tokens of each model"},
    (fetch, "configfile"): {"nargs": None, "required": True, "help": "the study's config"},
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
            keywords = OPTIONS[option] | EXCEPTIONS.get((run, option), {})
            if option.isupper():
                verb.add_argument(option, **keywords)
            else:
                verb.add_argument(f"--{option}", **{"required": "default" not in keywords} | keywords)
    return top


def devices_for(arguments: argparse.Namespace) -> AbstractContextManager[object]:
    """A lease on the GPUs of a verb that runs a model, to be taken before torch sees them; nothing for the others."""
    options = getattr(arguments, "settings", None) or vars(arguments)
    if "device" not in options or is_rank():
        return nullcontext()
    from batchscope.hardware.lease import leased_devices

    return leased_devices(options["device"], options.get("gpus", 1))


@contextmanager
def record_of(arguments: argparse.Namespace) -> Iterator[None]:
    """Refuse to run other code than the Snakefile saw; note spec and code beside the files once they are written."""
    record: Path | None = getattr(arguments, "record", None)
    verb = arguments.run_verb.__name__
    if record is None or is_rank():
        yield
        return
    if not is_code(arguments.code, STAGES[verb].module):
        raise UserError(
            "the code of this stage, or a library it computes with, is not the one that the workflow was started with. "
            "Start the workflow again: it will run what this changes"
        )
    yield
    write_record(record, verb, getattr(arguments, "spec", {}), arguments.code)


def checkpoints_of(run: Path) -> dict[str, Path]:
    """The checkpoints of a finished run that later stages read."""
    return {name: run / "checkpoints" / f"{name}.safetensors" for name in ("best", "last")}


def found_finished(arguments: argparse.Namespace) -> bool:
    """Whether this verb's result was there already, and is now in its place: without torch or a device.

    A run may be finished elsewhere; its training may have done later stages ahead.
    """
    if arguments.run_verb is train and arguments.results and not is_rank():
        from batchscope.provenance.manifests import run_fingerprint
        from batchscope.provenance.reuse import RUNS, reuse
        from batchscope.training.spec import TrainSpec

        fingerprint = run_fingerprint(TrainSpec(**arguments.spec), arguments.code, arguments.tokens)
        found = reuse(arguments.run, fingerprint, arguments.results, RUNS)
        if found:
            log.info(f"{found} is the same training, finished: nothing to train")
        return found is not None
    if arguments.run_verb in (evaluate, attention):
        from batchscope.provenance.handover import Request, collect

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
    return False


@contextmanager
def nothing_is_garbage() -> Iterator[None]:
    """For imports: what they make stays. To look for garbage there takes a second with torch, and one at the end."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def run_verb(arguments: argparse.Namespace) -> None:
    """Do a verb's work; log its seconds, and those from the start of the process to the start of the work."""
    began = time.time()
    with record_of(arguments):
        if not found_finished(arguments):
            with devices_for(arguments):
                with nothing_is_garbage():
                    work = arguments.run_verb(arguments)
                began = time.time()
                work()
    if arguments.run_verb not in (plan, verify, fetch):  # those are asked by a person
        seconds, start_up = time.time() - began, began - STARTED
        log.info(f"batchscope {arguments.run_verb.__name__}: done in {seconds:.2f} s (start-up {start_up:.2f} s)")


def main(argv: list[str] | None = None) -> None:
    """Run a verb. A mistake of the user's ends with one message and exit status 1."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    for noisy in ("httpx", "httpx2", "datasets", "matplotlib", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own
    verb = arguments.run_verb.__name__
    if getattr(arguments, "settings", None) and arguments.spec:
        with_places(arguments.spec, arguments.settings)
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
