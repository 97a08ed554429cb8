# The best and the last checkpoint of each run on validation and test.


rule evaluate:
    input:
        validation=rules.tokenize.output.validation,
        test=rules.tokenize.output.test,
        best=rules.train.output.best,
        last=rules.train.output.last,
    output:
        predictions=f"{RUN}/predictions.parquet",
        metrics=f"{RUN}/metrics.json",
    log:
        f"{STUDY_FOLDER}/logs/evaluate/{{model}}/bs{{batch}}/{{policy}}/seed{{seed}}.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/evaluate/{{model}}/bs{{batch}}/{{policy}}/seed{{seed}}.tsv"
    conda:
        "../envs/train.yaml"
    threads: STUDY.model_threads
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
        gpu=GPU,
    params:
        tokens=subpath(input.test, parent=True),
        run=subpath(output.metrics, parent=True),
        state=f"{STUDY_FOLDER}/state",
        spec=canonical_json(STUDY.evaluation_spec()),
        code=CODE["evaluate"],
        record=f"{RECORDS}/evaluate/{{model}}/bs{{batch}}/{{policy}}/seed{{seed}}.json",
        device=lambda wildcards, output: STUDY.device,
    message:
        "evaluate {wildcards.model}, target batch size {wildcards.batch}, {wildcards.policy} LR, seed {wildcards.seed}"
    shell:
        "python -m batchscope evaluate --spec {params.spec:q} --tokens {params.tokens:q}"
        " --run {params.run:q} --state {params.state:q} --device {params.device} --threads {threads}"
        " --code {params.code} --record {params.record:q} > {log:q} 2>&1"
