"""The command line: ``batchscope VERB``."""

import argparse
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from batchscope import __version__
from batchscope.cli import people, stages
from batchscope.cli.failures import naming_short_memory
from batchscope.errors import UserError
from batchscope.files import DamagedFileError, naming_a_full_disk
from batchscope.provenance.code import code_hash
from batchscope.provenance.inputs import check_inputs
from batchscope.provenance.jobs import JobFile, read_job_file
from batchscope.provenance.layout import RESULTS
from batchscope.provenance.stages import RUNS_A_MODEL, STAGES, example, verb_of, write_record
from batchscope.training.launch import is_rank
from batchscope.training.stop import EXIT_STATUS, Stopped
from batchscope.watch.pulse import FIRST_RANK, Pulse
from batchscope.wording import REVIEWS, Wording, visible

log = logging.getLogger("batchscope")
STARTED = time.time() - time.process_time()  # of the process: what came before this line was CPU work
NOISY = ("httpx", "httpx2", "datasets", "matplotlib", "fontTools")


class Messages(logging.Formatter):
    """Log lines with their time. The study's texts are called what its config calls them; no character is unseen."""

    words = REVIEWS

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return visible(self.words.of(super().format(record)))


SAID = Messages("%(asctime)s %(message)s", datefmt="%H:%M:%S")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="batchscope",
        description="What does the target batch size really do when you fine-tune a text encoder? People call "
        f"{', '.join(people.VERBS)}; the other verbs are the steps of the workflow, which `snakemake` calls for you.",
    )
    top.add_argument("--version", action="version", version=f"batchscope {__version__}")
    verbs = top.add_subparsers(title="verbs", metavar="VERB", dest="verb", required=True)
    for name, stage in stages.VERBS.items():
        verb = verbs.add_parser(name, help=stage.__doc__, description=stage.__doc__)
        partial = name == "report"
        verb.add_argument("--jobs", type=Path, required=not partial, metavar="FILE", help="job file of the workflow")
        verb.add_argument("--job", required=not partial, metavar="NAME", help=f"such as {example(name)}")
        if partial:
            verb.add_argument("--partial", type=Path, metavar="STUDY", help="instead: what a study has so far")
        verb.add_argument("--threads", type=int, metavar="N", help="CPU threads (all of them if not given)")
        verb.add_argument("--runtime", type=float, metavar="MINUTES", help="wall-time limit of the job")
    _add_people(verbs)
    return top


def _add_people(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    plan, watch, compare, design, fetch, verify, forensics, predict, explain, clean = (
        verbs.add_parser(name, help=verb.__doc__, description=verb.__doc__) for name, verb in people.VERBS.items()
    )
    plan.add_argument(
        "--configfile", type=Path, nargs="+", default=[], metavar="YAML", help="the same, as snakemake has it"
    )
    plan.add_argument("--cores", type=int, metavar="N", help="predict the time with so many cores (all if not given)")
    plan.add_argument("--json", action="store_true", help="for machines")
    plan.add_argument(
        "SNAKEMAKE", nargs="*", metavar="YAML", help="the config; after --: further arguments for snakemake"
    )
    _add_watch(watch)
    compare.add_argument("A", type=Path, help="a finished study: its config, its folder or its name")
    compare.add_argument("B", type=Path, help="another one")
    compare.add_argument("--html", type=Path, metavar="FILE", help="write it as a page, too")
    _add_design(design)
    fetch.add_argument("--configfile", type=Path, required=True, metavar="YAML", help="the study's config")
    fetch.add_argument("--cache", type=Path, metavar="FOLDER", help="instead of HF_HOME")
    verify.add_argument("FOLDER", type=Path, help="folder of a run; with --all that of a study")
    verify.add_argument("--all", action="store_true", help="every finished run of the study")
    forensics.add_argument("FILE", type=Path, help="YAML: accuracies of studies, see docs/reference-study.md")
    forensics.add_argument("--output", type=Path, metavar="FOLDER", help="write CSV tables and a forest plot there")
    clean.add_argument("FOLDER", type=Path, nargs="?", default=RESULTS, help="that of all studies (results)")
    clean.add_argument("--yes", action="store_true", help="delete without asking")
    clean.add_argument("--days", type=float, default=7, metavar="N", help="leave what is younger than N days (7)")
    for verb in (predict, explain):
        verb.add_argument("RUN", help="folder of a finished run, or in short demo/bert/bs64/constant/seed1")
    predict.add_argument("FILE", type=Path, help="csv, tsv, jsonl, json or parquet; all but parquet may be compressed")
    predict.add_argument("--text", required=True, metavar="COLUMN", help="column that holds the text")
    predict.add_argument("--output", type=Path, metavar="CSV", help="FILE.predictions.csv if not given")
    explain.add_argument("TEXT", help="the text, in quotation marks")
    explain.add_argument("--output", type=Path, metavar="FOLDER", default=Path("explained"), help="for the figures")
    for verb in (verify, predict, explain):
        verb.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"], help="of the model")
        verb.add_argument("--threads", type=int, metavar="N", help="CPU threads (all of them if not given)")


def _add_watch(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("STUDY", type=Path, help="its config, its folder such as results/demo, or its name")
    verb.add_argument("--once", action="store_true", help="print it once; status 1 if a job failed or was killed")
    verb.add_argument("--all", action="store_true", help="once, with a line for every job")
    verb.add_argument(
        "--cores", type=int, metavar="N", help="predict the time with so many (those in use, if not given)"
    )
    verb.add_argument("--every", type=float, metavar="SECONDS", default=2.0, help="between two looks (2)")


def _add_design(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--accuracy", type=float, required=True, metavar="SHARE", help="expected test accuracy, as .90")
    verb.add_argument("--reviews", type=int, required=True, metavar="N", help="test reviews")
    verb.add_argument("--seeds", type=int, required=True, metavar="J", help="seeds per cell")
    verb.add_argument("--contrasts", type=int, default=1, metavar="M", help="contrasts in Holm's family (1)")
    verb.add_argument("--margin", type=float, metavar="POINTS", help="as claims.margin of a config")
    verb.add_argument("--level", type=float, metavar="SHARE", help="as claims.level of a config")
    verb.add_argument("--power", type=float, metavar="SHARE", help="as claims.power of a config")
    verb.add_argument(
        "--sd-seed", type=float, default=0.0, metavar="POINTS", help="sd_seed of tables/contrasts.csv of a pilot study"
    )
    verb.add_argument(
        "--sd-review", type=float, default=0.0, metavar="POINTS", help="sd_review of that table: review × batch size"
    )


def run_stage(arguments: argparse.Namespace) -> None:
    """Do one job of the workflow; log its seconds, and those from the start of the process to the start of the work."""
    if arguments.jobs is None or arguments.job is None:
        raise UserError("give --partial STUDY; --jobs and --job are those of the workflow, which writes whole reports")
    jobs = read_job_file(arguments.jobs)
    SAID.words = Wording(*jobs.settings.words)
    pulse = Pulse(pulse_file(jobs, arguments.job), arguments.jobs, STARTED)
    task = stages.Task(jobs, arguments.job, arguments.threads, arguments.runtime, STARTED, pulse.observe)
    if verb_of(task.name) != arguments.verb:
        raise UserError(f"--job {task.name} is not a job of `batchscope {arguments.verb}`")
    began = time.time()
    beating: AbstractContextManager[object] = nullcontext() if is_other_rank() else pulse
    short = naming_short_memory(task.name)
    ended = ended_by_signals(task.name)
    with naming_a_full_disk(task.layout.study), short, beating, ended, recorded(task), stages.alone(task):
        if not stages.is_done(task):
            with leased(task):
                pulse.phase("starting")
                with without_garbage_collection():
                    work = stages.VERBS[arguments.verb](task)
                began = time.time()
                pulse.phase("working")
                work()
    seconds, start_up = time.time() - began, began - STARTED
    log.info(f"batchscope {arguments.verb}: done in {seconds:.2f} s (start-up {start_up:.2f} s)")


@contextmanager
def ended_by_signals(job: str) -> Iterator[None]:
    """Raise Stopped at SIGTERM and SIGINT, also amid imports. While a training updates, it has handlers of its own."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(f"{job} was stopped by a signal before it was done; the same command starts it again") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def pulse_file(jobs: JobFile, job: str) -> Path:
    """Where the process of a job says that it lives; of several ranks the first says how far the training is."""
    return jobs.layout.process(f"{job}{FIRST_RANK}" if is_rank() else job)


def is_other_rank() -> bool:
    """Whether this process is one of several that share a training, and not the first."""
    return is_rank() and os.environ.get("RANK", "0") != "0"


@contextmanager
def recorded(task: stages.Task) -> Iterator[None]:
    """Refuse other code than the workflow saw, and damaged inputs; record spec, code and hashes of what was written."""
    if is_rank():
        yield
        return
    identity = task.jobs.identity(task.name)
    if task.code != code_hash(STAGES[verb_of(task.name)].module):
        raise UserError(
            "the code of this stage, or a library it computes with, is not the one that the workflow was started with. "
            "Start the workflow again: it will run what this changes"
        )
    check_inputs(task.jobs, task.name)
    yield
    write_record(task.layout, task.name, identity, task.code)


def leased(task: stages.Task) -> AbstractContextManager[object]:
    """A lease on the GPUs of a job that runs a model, taken before torch sees them; nothing for the other jobs."""
    verb = verb_of(task.name)
    if verb not in RUNS_A_MODEL or is_rank():
        return nullcontext()
    from batchscope.hardware.lease import leased_devices

    settings = task.jobs.settings
    return leased_devices(settings.device, settings.gpus if verb == "train" else 1)


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """For imports, whose objects all stay: collecting garbage among them takes a second with torch, twice."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def main(argv: list[str] | None = None) -> None:
    """Run a verb. A mistake of the user's ends with one message and exit status 1."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(SAID)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own
    verb = arguments.verb
    try:
        if verb == "report" and arguments.partial:
            people.partial_report(arguments)
        elif verb in stages.VERBS:
            run_stage(arguments)
        else:
            people.VERBS[verb](arguments)
    except (UserError, DamagedFileError) as error:
        sys.exit(visible(SAID.words.of(f"batchscope {verb}: {error}")))
    except Stopped as reason:
        print(f"batchscope {verb}: {reason}", file=sys.stderr)
        sys.exit(EXIT_STATUS)
    except OSError as error:
        if error.errno is None:
            raise
        sys.exit(visible(f"batchscope {verb}: {error.strerror}: {error.filename or 'while writing'}"))
