# One training per unique run. Resume states stand in state/, which Snakemake does not know: it outlives a failed job.


rule train:
    input:
        train=rules.tokenize.output.train,
        validation=rules.tokenize.output.validation,
    output:
        history=f"{RUN}/history.jsonl",
        best=f"{RUN}/checkpoints/best.safetensors",
        last=f"{RUN}/checkpoints/last.safetensors",
        facts=f"{RUN}/train.json",
        manifest=f"{RUN}/manifest.json",
    log:
        f"{STUDY_FOLDER}/logs/train/{{model}}/bs{{batch}}/{{policy}}/seed{{seed}}.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/train/{{model}}/bs{{batch}}/{{policy}}/seed{{seed}}.tsv"
    conda:
        "../envs/train.yaml"
    threads: MODEL_THREADS
    resources:
        mem_mb=8000,
        runtime=24 * 60,
        gpu=GPUS_PER_TRAINING,
    params:
        tokens=subpath(input.train, parent=True),
        run=subpath(output.facts, parent=True),
        state=f"{STUDY_FOLDER}/state",
        wandb=f"{STUDY_FOLDER}/wandb",
        spec=lambda wildcards: canonical_json(TRAIN_SPECS[cell(wildcards)].to_dict()),
        code=code_hash("batchscope.training.loop"),
        # A parameter function that takes `threads` is not compared between runs: a setting trains nothing again.
        settings=lambda wildcards, threads: canonical_json(
            STUDY.settings(cell(wildcards))
        ),
        ahead=lambda wildcards, threads: AHEAD,
    message:
        "train {wildcards.model}, target batch size {wildcards.batch}, {wildcards.policy} LR, seed {wildcards.seed}"
    shell:
        "python -m batchscope train --spec {params.spec:q} --code {params.code} --settings {params.settings:q}"
        " --ahead {params.ahead:q}"
        " --tokens {params.tokens:q} --run {params.run:q} --state {params.state:q}"
        " --tracking-folder {params.wandb:q} --runtime {resources.runtime} --threads {threads} > {log:q} 2>&1"
