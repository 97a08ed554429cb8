"""Snakemake that asks SLURM every second what became of its jobs.

The SLURM executor waits ten seconds longer after each status check that found no finished job, up to three minutes. No
option changes that. On the tests' cluster, where a job lasts seconds, most of the time would be such waiting.
"""

import asyncio

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

SECONDS = 1


async def _sleep(self: RemoteExecutor) -> None:
    await asyncio.sleep(SECONDS)


RemoteExecutor.sleep = _sleep

if __name__ == "__main__":
    main()
