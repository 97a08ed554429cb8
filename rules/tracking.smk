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
        f"{STUDY_FOLDER}/logs/track/{{model}}/bs{{batch}}/{{policy}}/seed{{seed}}.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/track/{{model}}/bs{{batch}}/{{policy}}/seed{{seed}}.tsv"
    localrule: True
    conda:
        "../envs/tracking.yaml"
    threads: 1
    params:
        spec=lambda wildcards: SPECS[f"track/{cell(wildcards).path}"],
        code=CODE["track"],
        jobs=job_file,
    message:
        "track {wildcards.model}, target batch size {wildcards.batch}, {wildcards.policy} LR, seed {wildcards.seed}"
    shell:
        "python -m batchscope track --jobs {params.jobs:q} --job track/{wildcards.model}/bs{wildcards.batch}/{wildcards.policy}/seed{wildcards.seed}"
        " > {log:q} 2>&1"
