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
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        spec=SPECS["corpus"],
        code=CODE["corpus"],
        record=f"{RECORDS}/corpus.json",
        # A parameter function that takes `output` is not compared between runs.
        settings=lambda wildcards, output: canonical_json(STUDY.data_place()),
    message:
        "read the reviews"
    shell:
        "python -m batchscope corpus --spec {params.spec:q} --settings {params.settings:q} --output {output:q}"
        " --code {params.code} --record {params.record:q} > {log:q} 2>&1"


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
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        spec=SPECS["split"],
        code=CODE["split"],
        record=f"{RECORDS}/split.json",
    message:
        "divide the reviews into train, validation and test"
    shell:
        "python -m batchscope split --spec {params.spec:q} --corpus {input:q} --output {output:q}"
        " --code {params.code} --record {params.record:q} > {log:q} 2>&1"


rule tokenize:
    input:
        corpus=rules.corpus.output,
        split=rules.split.output,
    output:
        train=f"{TOKENS}/train.arrow",
        validation=f"{TOKENS}/validation.arrow",
        test=f"{TOKENS}/test.arrow",
        tokenizer=directory(f"{TOKENS}/tokenizer"),
        manifest=f"{TOKENS}/manifest.json",
    log:
        f"{STUDY_FOLDER}/logs/tokenize/{{model}}.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/tokenize/{{model}}.tsv"
    priority: 10
    conda:
        "../envs/data.yaml"
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        tokens=subpath(output.train, parent=True),
        spec=lambda wildcards: SPECS[f"tokenize/{wildcards.model}"],
        code=CODE["tokenize"],
        record=f"{RECORDS}/tokenize/{{model}}.json",
        settings=lambda wildcards, output: canonical_json(
            STUDY.model_place(wildcards.model)
        ),
    message:
        "tokenize for {wildcards.model}"
    shell:
        "RAYON_NUM_THREADS={threads} python -m batchscope tokenize --spec {params.spec:q} --settings {params.settings:q}"
        " --corpus {input.corpus:q} --split {input.split:q} --output {params.tokens:q} --results results"
        " --code {params.code} --record {params.record:q} > {log:q} 2>&1"


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
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        tokens=lambda wildcards, input: sorted(
            {str(Path(file).parent) for file in input.tokens}
        ),
        spec=SPECS["audit"],
        code=CODE["audit"],
        record=f"{RECORDS}/audit.json",
    message:
        "audit the data"
    shell:
        "python -m batchscope audit --corpus {input.corpus:q} --split {input.split:q} --tokens {params.tokens:q}"
        " --output {output:q}"
        " --code {params.code} --record {params.record:q} > {log:q} 2>&1"


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
        mem_mb=growing(8000),
        runtime=growing(30),
    params:
        spec=SPECS["reviews"],
        code=CODE["reviews"],
        record=f"{RECORDS}/reviews.json",
    message:
        "choose the reviews whose attention is drawn"
    shell:
        "python -m batchscope reviews --spec {params.spec:q} --corpus {input.corpus:q} --split {input.split:q}"
        " --output {output:q}"
        " --code {params.code} --record {params.record:q} > {log:q} 2>&1"
