"""Start one run on several GPUs: the same command once per rank, with torchrun's launcher."""

import os
import sys

from batchscope.errors import UserError
from batchscope.training.stop import EXIT_STATUS


def is_rank() -> bool:
    """Whether this process was started as one of several."""
    return "WORLD_SIZE" in os.environ


def launch(ranks: int, arguments: list[str]) -> None:
    """Run ``python -m batchscope`` with ``arguments`` as ``ranks`` processes on this machine; wait for all of them.

    If the run was stopped, this process exits with the status of a stopped run. If ranks failed, UserError is raised;
    each rank has logged its reason by then.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=f"batchscope-{os.getpid()}",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "batchscope", *arguments)
    except SignalException:
        sys.exit(EXIT_STATUS)
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        if EXIT_STATUS in codes:
            sys.exit(EXIT_STATUS)
        raise UserError(f"{len(error.failures)} of {ranks} ranks failed; the log above says why") from None
