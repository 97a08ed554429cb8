"""How the workers of pytest-xdist share the tests (a plugin of tests/conftest.py; see docs/testing.md).

pytest-xdist's own ``--dist loadgroup`` does not keep groups together under pytest 9.2, because it can no longer change
the names of tests.
"""

import pytest
from xdist.scheduler import LoadScopeScheduling

# A machine has room for one cluster.
TOGETHER = ("tests/slurm/",)
# Independent of each other, and many: they come last, so that all workers end at about the same time.
APART = ("tests/workflow/test_reruns.py", "tests/workflow/test_slurm_options.py")
# The longest come first.
FIRST = (
    *(*TOGETHER, "tests/workflow/test_workflow.py", "tests/certificate/", "tests/provenance/test_handover.py"),
    *("tests/benchmarks/", "tests/data/"),
    # Reads the study that test_workflow.py makes, and would wait for it.
    "tests/workflow/test_tracking_rule.py",
)
# These wait, as the cluster's tests do, but for a server: they come when those are done and all processes compute.
LATE = ("tests/tracking/",)
# Start whole workflows or many processes; the rest runs in the process of the tests, where coverage sees it.
SLOW = (
    *("tests/slurm/", "tests/workflow/", "tests/tracking/"),
    *("tests/benchmarks/test_benchmarks.py", "tests/benchmarks/test_gpu_check.py"),
    *("tests/provenance/test_handover.py", "tests/data/test_fetch.py"),
)


class Sharing(LoadScopeScheduling):
    """Keeps a file's tests in one worker, for its fixtures; those of ``TOGETHER`` by folder, of ``APART`` singly."""

    def _split_scope(self, nodeid: str) -> str:
        if folder := next((folder for folder in TOGETHER if nodeid.startswith(folder)), None):
            return folder
        return nodeid if nodeid.startswith(APART) else nodeid.partition("::")[0]


def rank(nodeid: str) -> int:
    """Place of a test in the order of the workers."""
    if nodeid.startswith(APART):
        return len(FIRST) + 2
    if nodeid.startswith(LATE):
        return len(FIRST) + 1
    return next((place for place, start in enumerate(FIRST) if nodeid.startswith(start)), len(FIRST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Sharing:
    """Replace the scheduler that ``--dist`` names."""
    config.option.loadscopereorder = False
    return Sharing(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of processes and whole workflows as slow, and begin with them where workers share the tests."""
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank(item.nodeid))
