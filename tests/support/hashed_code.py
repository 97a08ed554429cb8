"""Reads the code of every stage and finds Snakemake's plugins, so that processes forked later have done so already.

Not the plugins for Snakemake's messages: `batchscope plan` has one of its own.
"""

from snakemake_interface_report_plugins.registry import ReportPluginRegistry
from snakemake_interface_scheduler_plugins.registry import SchedulerPluginRegistry
from snakemake_interface_storage_plugins.registry import StoragePluginRegistry

from batchscope.provenance.code import code_hash
from batchscope.provenance.stages import STAGES

CODE = {verb: code_hash(stage.module) for verb, stage in STAGES.items()}
PLUGINS = [ReportPluginRegistry(), SchedulerPluginRegistry(), StoragePluginRegistry()]
