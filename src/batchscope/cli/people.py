"""The verbs that people call."""

import argparse
import sys
from itertools import takewhile
from pathlib import Path

from batchscope.errors import UserError
from batchscope.wording import Wording, visible


def say(text: object) -> None:
    """Print text, in which names and titles may be anybody's."""
    print(visible(str(text)))


def plan(arguments: argparse.Namespace) -> None:
    """Show what the workflow would run now and why, what it finds finished, and how long it will take."""
    from batchscope.provenance.plan import machine_of, planned_jobs

    named = [] if arguments.configfile else list(takewhile(is_config, arguments.SNAKEMAKE))
    options = [*arguments.SNAKEMAKE[len(named) :], *(["--cores", str(arguments.cores)] if arguments.cores else [])]
    jobs, job_file = planned_jobs(arguments.configfile or [Path(name) for name in named], options)
    # These take seconds, for which a mistake in the config need not wait.
    from batchscope.provenance.forecast import forecast
    from batchscope.provenance.foresight import foresight
    from batchscope.provenance.horizon import foresee
    from batchscope.provenance.plan_view import as_json, as_table

    outlook = forecast(jobs, job_file, machine_of(options))
    foreseen = foresee(job_file, [job.name for job in jobs if job.reuses is None])
    outlook = outlook._replace(notes=[*outlook.notes, *foreseen.notes])
    words = Wording(*job_file.settings.words)
    say(as_json(jobs, outlook) if arguments.json else words.of(f"{as_table(jobs, outlook)}\n\n{foresight(job_file)}"))


def is_config(argument: str) -> bool:
    """Whether an argument of ``plan`` is a config that was named without ``--configfile``, as other verbs take it."""
    return Path(argument).suffix in (".yaml", ".yml", ".json")


def watch(arguments: argparse.Namespace) -> None:
    """Show what becomes of every job of a study: in a terminal until all are done, elsewhere once."""
    from batchscope.provenance.studies import find_study
    from batchscope.watch.live import Options, watch

    options = Options(arguments.once, arguments.all, arguments.cores, arguments.every)
    if watch(find_study(arguments.STUDY), options):
        sys.exit(1)


def partial_report(arguments: argparse.Namespace) -> None:
    """Write tables, figures and a page of what a study has so far, without verdicts, and say where they are."""
    from batchscope.provenance.studies import find_study
    from batchscope.watch.partial import write_partial

    print(write_partial(find_study(arguments.partial)))


def compare(arguments: argparse.Namespace) -> None:
    """Say what differs between two finished studies, and compare the results of the cells that both have."""
    from batchscope.compare.compare import as_markdown, write_page
    from batchscope.compare.compare import compare as run

    found = run(arguments.A, arguments.B)
    print(as_markdown(found), end="")
    if arguments.html:
        write_page(found, arguments.html)


def design(arguments: argparse.Namespace) -> None:
    """Say which difference so many seeds and test reviews can establish, and what the margin needs, without a study."""
    from pydantic import ValidationError

    from batchscope.config.claims import Claims
    from batchscope.config.errors import explain
    from batchscope.provenance.foresight import design_in_words

    given = {name: getattr(arguments, name) for name in ("margin", "level", "power")}
    try:
        claims = Claims.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise UserError("impossible options:\n" + explain(error.errors(), Claims)) from None
    say(
        design_in_words(
            arguments.accuracy,
            arguments.seeds,
            arguments.reviews,
            claims,
            arguments.contrasts,
            arguments.sd_seed,
            arguments.sd_review,
        )
    )


def fetch(arguments: argparse.Namespace) -> None:
    """Download a study's models and data into a cache, for jobs on nodes without a network."""
    from batchscope.data.fetch import fetch as run

    run(arguments.configfile, arguments.cache)


def verify(arguments: argparse.Namespace) -> None:
    """Compute a run's metrics again from its checkpoints, and compare them and every hash with what is recorded."""
    from batchscope.hardware.device import use_threads
    from batchscope.provenance.verify import runs_of, table, verify_run

    use_threads(arguments.threads)
    folder = arguments.FOLDER
    results = {run: verify_run(run, arguments.device) for run in (runs_of(folder) if arguments.all else [folder])}
    say(table(results))
    wrong = [run for run, checks in results.items() if not all(check.passed for check in checks)]
    if wrong:
        raise UserError(f"{len(wrong)} of {len(results)} runs are not what they say: {', '.join(map(str, wrong))}")


def forensics(arguments: argparse.Namespace) -> None:
    """Say what reported accuracies can show by themselves: possible counts, contrasts, scatter between studies."""
    from batchscope.config.forensics import read_forensics

    file = read_forensics(arguments.FILE)
    from batchscope.report.forensics import Findings, in_words, write_findings  # matplotlib: after a mistake is told

    sources = {name: study.source for name, study in file.studies.items()}
    found = Findings.of(file.title, sources, file.level, file.reported())
    written = write_findings(found, arguments.output) if arguments.output else []  # first: who reads may stop
    say(in_words(found))
    if written:
        say("Written: " + ", ".join(map(str, written)))


def predict(arguments: argparse.Namespace) -> None:
    """Write the class and the probabilities of new texts with a run's best checkpoint: a file of any size."""
    from batchscope.hardware.lease import leased_devices

    with leased_devices(arguments.device):
        from batchscope.hardware.device import use_threads
        from batchscope.insight.finished_run import open_run, run_folder
        from batchscope.insight.predict_texts import predict_file

        use_threads(arguments.threads)
        run = open_run(run_folder(arguments.RUN), arguments.device)
        output = arguments.output or arguments.FILE.with_name(f"{arguments.FILE.name}.predictions.csv")
        say(f"{output}: {predict_file(run, arguments.FILE, arguments.text, output).in_words(run.max_length)}")


def explain(arguments: argparse.Namespace) -> None:
    """Draw the attention of a run's best checkpoint for one text, and name the tokens that reach its output most."""
    from batchscope.hardware.lease import leased_devices

    with leased_devices(arguments.device):
        from batchscope.hardware.device import use_threads
        from batchscope.insight.explain import explain_text
        from batchscope.insight.finished_run import open_run, run_folder
        from batchscope.report.explain import draw_explanation, explanation_in_words

        use_threads(arguments.threads)
        run = open_run(run_folder(arguments.RUN), arguments.device)
        found = explain_text(run, arguments.TEXT)
        say(explanation_in_words(found, run.classes, run.max_length))
        for path in draw_explanation(found, run.classes, run.name, arguments.output):
            say(path)


def clean(arguments: argparse.Namespace) -> None:
    """List what no run of any study needs, such as states of trainings that no config asks for; delete it if told."""
    from batchscope.provenance.clean import in_words, leftovers, remove, size_in_words
    from batchscope.provenance.layout import LOCKS

    if not arguments.days >= 0:
        raise UserError(f"--days must be 0 or more (it is {arguments.days:g})")
    found = leftovers(arguments.FOLDER, arguments.days)
    say(in_words(found))
    if not found:
        return
    if not arguments.yes and not sys.stdin.isatty():
        say("Nothing was deleted; --yes deletes all of it.")
    elif arguments.yes or input("Delete all of it? [y/N] ").strip().lower() in ("y", "yes"):
        say(f"{size_in_words(remove(found, arguments.FOLDER / LOCKS))} freed.")
    else:
        say("Nothing was deleted.")


VERBS = {
    verb.__name__: verb for verb in (plan, watch, compare, design, fetch, verify, forensics, predict, explain, clean)
}
