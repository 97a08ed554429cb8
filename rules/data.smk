# From reviews to tokens: once per study, tokens once per model.


rule corpus:
    output:
        f"{STUDY_FOLDER}/data/corpus.parquet",
    log:
        f"{STUDY_FOLDER}/logs/corpus.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/corpus.tsv"
    priority: 10
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        spec=canonical_json(CORPUS_SPEC),
        code=code_hash("batchscope.data.corpus"),
    message:
        "read the reviews"
    shell:
        "python -m batchscope corpus --spec {params.spec:q} --output {output:q} > {log:q} 2>&1"


rule split:
    input:
        rules.corpus.output,
    output:
        f"{STUDY_FOLDER}/data/split.parquet",
    log:
        f"{STUDY_FOLDER}/logs/split.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/split.tsv"
    priority: 10
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=canonical_json(STUDY.split_spec()),
        code=code_hash("batchscope.data.split"),
    message:
        "divide the reviews into train, validation and test"
    shell:
        "python -m batchscope split --spec {params.spec:q} --corpus {input:q} --output {output:q} > {log:q} 2>&1"


rule tokenize:
    input:
        corpus=rules.corpus.output,
        split=rules.split.output,
    output:
        train=f"{TOKENS}/train.arrow",
        validation=f"{TOKENS}/validation.arrow",
        test=f"{TOKENS}/test.arrow",
        tokenizer=directory(f"{TOKENS}/tokenizer"),
    log:
        f"{STUDY_FOLDER}/logs/tokenize/{{model}}.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/tokenize/{{model}}.tsv"
    priority: 10
    conda:
        "../envs/data.yaml"
    threads: MODEL_THREADS
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        tokens=subpath(output.train, parent=True),
        spec=lambda wildcards: canonical_json(TOKENS_SPECS[wildcards.model]),
        code=code_hash("batchscope.data.tokenize"),
    message:
        "tokenize for {wildcards.model}"
    shell:
        "RAYON_NUM_THREADS={threads} python -m batchscope tokenize --spec {params.spec:q} --corpus {input.corpus:q} --split {input.split:q}"
        " --output {params.tokens:q} > {log:q} 2>&1"


rule audit:
    input:
        corpus=rules.corpus.output,
        split=rules.split.output,
        tokens=expand(
            f"{TOKENS}/{{part}}.arrow",
            model=STUDY.models,
            part=["train", "validation", "test"],
        ),
    output:
        report(
            f"{STUDY_FOLDER}/data/audit.json",
            category="Data",
            labels={"table": "audit"},
            caption="../workflow/report/audit.rst",
        ),
    log:
        f"{STUDY_FOLDER}/logs/audit.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/audit.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        tokens=lambda wildcards, input: sorted(
            {str(Path(file).parent) for file in input.tokens}
        ),
        code=code_hash("batchscope.data.audit"),
    message:
        "audit the data"
    shell:
        "python -m batchscope audit --corpus {input.corpus:q} --split {input.split:q} --tokens {params.tokens:q}"
        " --output {output:q} > {log:q} 2>&1"


rule reviews:
    input:
        corpus=rules.corpus.output,
        split=rules.split.output,
    output:
        f"{STUDY_FOLDER}/data/reviews.json",
    log:
        f"{STUDY_FOLDER}/logs/reviews.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/reviews.tsv"
    priority: 10
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        spec=canonical_json(STUDY.reviews_spec()),
        code=code_hash("batchscope.data.reviews"),
    message:
        "choose the reviews whose attention is drawn"
    shell:
        "python -m batchscope reviews --spec {params.spec:q} --corpus {input.corpus:q} --split {input.split:q}"
        " --output {output:q} > {log:q} 2>&1"
