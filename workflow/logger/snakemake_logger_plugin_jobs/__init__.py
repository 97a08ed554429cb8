"""A Snakemake logger that writes every job of a (dry) run as one line of JSON to the file ``BATCHSCOPE_JOB_LOG``.

`batchscope plan` runs Snakemake with it: what Snakemake would do is told by Snakemake, in its own log events.
"""

import json
import os
from logging import LogRecord
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

FIELDS = ("rule_name", "wildcards", "input", "output", "log", "reason", "threads", "priority")


class LogHandler(LogHandlerBase):
    """One line per job, whatever ``quiet`` hides from the terminal."""

    writes_to_stream = False
    writes_to_file = False
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        self.lines = Path(os.environ["BATCHSCOPE_JOB_LOG"])

    def emit(self, record: LogRecord) -> None:
        """Write the job of a JOB_INFO event."""
        if getattr(record, "event", None) == LogEvent.JOB_INFO:
            job = {field: getattr(record, field) for field in FIELDS}
            with self.lines.open("a", encoding="utf-8") as file:
                more = {"wildcards": dict(job["wildcards"] or {}), "gpus": vars(record)["resources"].get("gpu", 0)}
                file.write(json.dumps(job | more) + "\n")
