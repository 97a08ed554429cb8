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
        run=subpath(input.facts, parent=True),
        wandb=f"{STUDY_FOLDER}/wandb",
        spec=lambda wildcards: SPECS[f"track/{cell(wildcards).path}"],
        code=CODE["track"],
        record=f"{RECORDS}/track/{{model}}/bs{{batch}}/{{policy}}/seed{{seed}}.json",
    message:
        "track {wildcards.model}, target batch size {wildcards.batch}, {wildcards.policy} LR, seed {wildcards.seed}"
    shell:
        "python -m batchscope track --spec {params.spec:q} --run {params.run:q}"
        " --tracking-folder {params.wandb:q} --output {output:q}"
        " --code {params.code} --record {params.record:q} > {log:q} 2>&1"
