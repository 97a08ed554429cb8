# Batchscope: what does the target batch size do when you fine-tune a text encoder, and is the difference real?
#
#   corpus ─► split ─► tokens ─► train ─► evaluate ──► tables ─► figures ─► report
#                │        │            ├──► branch ───────┘           │
#                │        ├──► audit   └──► attention ─► maps ────────┤
#                │        └──► certify ─────────────────────────────┘
#                └──► reviews ───────────────┘
#
#   snakemake --cores 8 --resources gpu=1                        the reference study (config/config.yaml)
#   snakemake --cores 2 --configfile config/demo.yaml            the demo, offline, a few minutes
#
# Each rule calls one verb of the package under src/. The config's keys are explained in config/README.md.

from pathlib import Path

from snakemake.settings.types import DeploymentMethod
from snakemake.utils import min_version

min_version("9.27")


# The folder of this file, also where another workflow uses this one as a module.
HOME = Path(str(workflow.current_basedir))


# For `--software-deployment-method apptainer` alone; envs/batchscope.def says how to build it. Snakemake checks the path in any
# case, and refuses a space in it.
if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:

    container: str(HOME / "envs/batchscope.sif")


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/branch.smk"
include: "rules/certify.smk"
include: "rules/evaluate.smk"
include: "rules/tracking.smk"
include: "rules/attention.smk"
include: "rules/insight.smk"
include: "rules/report.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        f"{STUDY_FOLDER}/report/index.html",
        f"{STUDY_FOLDER}/report/summary.md",
        of_all_runs("checkpoints/best.safetensors"),
        of_all_runs("checkpoints/last.safetensors"),
        of_runs_with_maps("attention/maps"),
        rules.errors.output if STUDY.insight.errors.enabled else [],
        rules.divergence.output if STUDY.insight.attention.enabled else [],
        of_all_runs("tracking.json") if STUDY.tracking.mode != "disabled" else [],
    message:
        "the study is complete: {input[0]}"


compare_with_records()


onstart:
    keep_what_others_take()
