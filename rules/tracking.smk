# One Weights & Biases run per training, replayed from its history where Snakemake itself runs: a node may have no network.


rule track:
    input:
        history=rules.train.output.history,
        facts=rules.train.output.facts,
        manifest=rules.train.output.manifest,
        metrics=rules.evaluate.output.metrics,
    output:
        f"{RUN}/tracking.json",
    log:
        f"{STUDY_FOLDER}/logs/track/{RUN_NAME}.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/track/{RUN_NAME}.tsv"
    localrule: True
    conda:
        "../envs/tracking.yaml"
    threads: 1
    params:
        spec=spec_of("track"),
        code=CODE["track"],
        jobs=job_file,
    message:
        f"track {RUN_IN_WORDS}"
    shell:
        command(f"track/{RUN_OF_JOB}")
