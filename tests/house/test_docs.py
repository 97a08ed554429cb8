"""What README and docs tell a reader to type is possible, and what they quote is what the code says."""

import argparse
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from snakemake.cli import get_argument_parser
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from batchscope.cli.main import parser
from batchscope.config.schema import Config
from batchscope.provenance.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("config/*.md"), *ROOT.glob("results/*.md")])
CONFIGS = sorted(ROOT.glob("config/*.yaml"))
TOOLS = ("batchscope", "snakemake", "make")
PROFILES = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("profiles/*/profile.yaml")}
# A reader's own config: the tutorial and the config's page say how to write it.
OWN_CONFIGS = {"my.yaml", "config/mine.yaml"}


def commands(text: str) -> list[str]:
    """Every command of a page or a config's header: of fenced and indented blocks and of inline code."""
    text = re.sub(r" *\\\n *(?:# *)?", " ", text)
    blocks = re.findall(r"^ *```(?:console|sh|bash)\n(.*?)^ *```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"^(?:    |# *[A-Z][a-z]+ +)(.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    lines += [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
    found = [re.split(r"\s+#\s|\s{2,}\(or", line.strip().removeprefix("$ "))[0].rstrip() for line in lines]
    return [line for line in found if re.match(rf"({'|'.join(TOOLS)}) ", line) and "VERB" not in line]


def refuse(message: str) -> None:
    """Instead of leaving the process."""
    raise ValueError(message)


@pytest.fixture(scope="module")
def snakemake_parser() -> argparse.ArgumentParser:
    """Snakemake's own, with the options of the installed executors."""
    found = get_argument_parser()
    found.error = refuse
    return found


def check(command: str, snakemake: argparse.ArgumentParser) -> None:
    """Raises ValueError for an option, a target, a config or a profile that does not exist."""
    tool, *words = shlex.split(command, comments=True)
    if tool == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        if unknown := [word for word in words if "=" not in word and word not in targets]:
            raise ValueError(f"the Makefile has no target {unknown[0]}")
        return
    if tool == "batchscope":
        top = parser()
        verbs = next(action.choices for action in top._actions if isinstance(action, argparse._SubParsersAction))
        for one in (top, *verbs.values()):
            one.error = refuse
        if words == ["--help"] or (len(words) == 1 and words[0] in verbs):
            return  # prose that names a verb
        arguments = top.parse_args([word for word in words if word != "--help"])
        configs = getattr(arguments, "configfile", None) or []
        configs = configs if isinstance(configs, list) else [configs]
    else:
        arguments = snakemake.parse_args(words)
        configs = arguments.configfile
        profile = arguments.workflow_profile
        if profile and str(profile) not in PROFILES | {"none", "profiles/NAME"}:
            raise ValueError(f"there is no profile {profile}")
    for config in map(str, configs):
        if config not in OWN_CONFIGS and not (ROOT / config).is_file():
            raise ValueError(f"there is no config {config}")


def installed(command: str) -> bool:
    """Whether the executor that a command names is among those of the tests."""
    named = re.search(r"--executor (\S+)", command)
    return named is None or named[1] in ExecutorPluginRegistry().get_registered_plugins()


@pytest.mark.parametrize("page", [*PAGES, *CONFIGS], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_can_be_given(page: Path, snakemake_parser: argparse.ArgumentParser) -> None:
    for command in commands(page.read_text(encoding="utf-8")):
        if installed(command):
            try:
                check(command, snakemake_parser)
            except (ValueError, SystemExit) as error:
                pytest.fail(f"{page.name}: `{command}`: {error}")


def test_the_commands_of_the_pages_are_found() -> None:
    """The test above would pass on pages in which it finds none."""
    found = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert {"make demo", "snakemake --cores 8 --resources gpu=1"} <= set(found)
    assert len(commands((ROOT / "docs/clusters.md").read_text(encoding="utf-8"))) >= 5


@pytest.mark.parametrize(
    "wrong",
    ["make demos", "batchscope plan --configfiles config/demo.yaml", "batchscope plans", "snakemake --core-s 8"]
    + ["snakemake --configfile config/none.yaml", "snakemake --workflow-profile profiles/none-such"],
)
def test_a_wrong_command_is_noticed(wrong: str, snakemake_parser: argparse.ArgumentParser) -> None:
    with pytest.raises((ValueError, SystemExit)):
        check(wrong, snakemake_parser)


def test_every_study_in_the_pages_is_a_valid_config() -> None:
    found = 0
    for page in PAGES:
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            content = yaml.safe_load(block)
            if "study" in content:
                Config.model_validate(content)
                found += 1
    assert found >= 2


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md", "docs/testing.md"])
def test_the_files_that_a_page_names_exist(page: str) -> None:
    named = re.findall(r"`([\w/.]+/[\w.]+\.(?:py|smk))`", (ROOT / page).read_text(encoding="utf-8"))
    found = [
        name for name in named if any((base / name).exists() for base in (ROOT, ROOT / "src/batchscope", ROOT / "docs"))
    ]
    assert named
    assert set(named) - set(found) == set()


def test_the_troubleshooting_page_quotes_messages_of_the_code() -> None:
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "rules").glob("*.smk")]
    text = " ".join(path.read_text(encoding="utf-8") for path in files)
    text = re.sub(r"[\"']\s*\n\s*f?[\"']", "", text)
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    quoted = [heading.strip("` ") for heading in re.findall(r"^### (`.*`)$", page, re.M)]
    assert len(quoted) > 20
    parts = [part.strip() for message in quoted for part in message.split("…")]
    assert [part for part in parts if part not in text] == []


def test_the_rule_graph_shows_every_rule() -> None:
    shown = set(re.findall(r"<text[^>]*>(\w+)", (ROOT / "docs/rulegraph.svg").read_text(encoding="utf-8")))
    assert shown == {"page" if verb == "report" else verb for verb in STAGES}, "run `make rulegraph`"


def test_the_help_of_make_is_shown() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  make ([a-z-]+) +", shown, re.M)) == set(
        re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
    )
