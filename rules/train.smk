# One training per unique run. Resume states stand in state/, which Snakemake does not know: it outlives a failed job.
# A run's files are marked `update` so that they still stand there when its job starts: where spec, code and tokens turn out
# to be those they were made of, nothing is trained.


rule train:
    input:
        train=rules.tokenize.output.train,
        validation=rules.tokenize.output.validation,
    output:
        history=update(f"{RUN}/history.jsonl"),
        best=update(f"{RUN}/checkpoints/best.safetensors"),
        last=update(f"{RUN}/checkpoints/last.safetensors"),
        facts=update(f"{RUN}/train.json"),
        manifest=update(f"{RUN}/manifest.json"),
    log:
        f"{STUDY_FOLDER}/logs/train/{{model}}/bs{{batch}}/{{policy}}/seed{{seed}}.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/train/{{model}}/bs{{batch}}/{{policy}}/seed{{seed}}.tsv"
    conda:
        "../envs/train.yaml"
    threads: STUDY.model_threads
    resources:
        mem_mb=growing(8000),
        runtime=growing(8 * 60),
        gpu=GPUS_PER_TRAINING,
    params:
        tokens=subpath(input.train, parent=True),
        run=subpath(output.facts, parent=True),
        state=f"{STUDY_FOLDER}/state",
        wandb=f"{STUDY_FOLDER}/wandb",
        spec=lambda wildcards: SPECS[f"train/{cell(wildcards).path}"],
        code=CODE["train"],
        record=f"{RECORDS}/train/{{model}}/bs{{batch}}/{{policy}}/seed{{seed}}.json",
        # A parameter function that takes `output` is not compared between runs: a setting trains nothing again.
        settings=lambda wildcards, output: canonical_json(
            STUDY.settings(cell(wildcards))
        ),
        ahead=lambda wildcards, output: AHEAD,
        # Only a cluster ends a job at its runtime.
        limit=(
            (lambda wildcards, resources: resources.runtime)
            if workflow.remote_exec
            else (lambda wildcards, output: "inf")
        ),
    message:
        "train {wildcards.model}, target batch size {wildcards.batch}, {wildcards.policy} LR, seed {wildcards.seed}"
    shell:
        "python -m batchscope train --spec {params.spec:q} --settings {params.settings:q}"
        " --ahead {params.ahead:q}"
        " --tokens {params.tokens:q} --run {params.run:q} --state {params.state:q}"
        " --tracking-folder {params.wandb:q} --runtime {params.limit} --threads {threads}"
        " --results results --code {params.code} --record {params.record:q} > {log:q} 2>&1"
