"""A small study through real Snakemake: a fresh folder for a test, or the finished study."""

import shutil
from pathlib import Path

import pytest
from once import made_once
from processes import command_lines_kept
from small_workflow import Workflow


@pytest.fixture
def workflow(root: Path, tmp_path: Path) -> Workflow:
    """A workflow in a fresh folder."""
    return Workflow(root, tmp_path)


@pytest.fixture(scope="session")
def pristine(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The small study, finished: four cells, three runs. Nobody may change it, or run Snakemake in it."""

    def make(folder: Path) -> None:
        workflow = Workflow(root, folder)
        workflow.write_config()
        with command_lines_kept(folder / "command_lines.txt"):
            result = workflow.snakemake_afresh()
        assert result.returncode == 0, result.stdout

    return Workflow(root, made_once(tmp_path_factory, "finished", make))


@pytest.fixture(scope="session")
def finished(pristine: Workflow, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """A copy of the finished study for the tests of this process, whose dry runs write into its folder."""
    folder = tmp_path_factory.mktemp("copy") / "finished"
    shutil.copytree(pristine.folder, folder)
    return Workflow(root, folder)
