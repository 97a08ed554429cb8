"""Reads the code of every stage where it is imported, so that processes forked later have read it already."""

from batchscope.provenance.code import code_hash
from batchscope.provenance.stages import STAGES

CODE = {verb: code_hash(stage.module) for verb, stage in STAGES.items()}
