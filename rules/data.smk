# From reviews to tokens: once per study, tokens once per model.


rule corpus:
    output:
        f"{STUDY_FOLDER}/data/corpus.parquet",
    log:
        f"{STUDY_FOLDER}/logs/corpus.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/corpus.tsv"
    priority: 10
    localrule: True
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        spec=SPECS["corpus"],
        code=CODE["corpus"],
        jobs=job_file,
    message:
        f"read the {STUDY.data.wording.many}"
    shell:
        command("corpus")


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
    localrule: True
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        spec=SPECS["split"],
        code=CODE["split"],
        jobs=job_file,
    message:
        f"divide the {STUDY.data.wording.many} into train, validation and test"
    shell:
        command("split")


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
    localrule: True
    conda:
        "../envs/data.yaml"
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        spec=lambda wildcards: SPECS[f"tokenize/{wildcards.model}"],
        code=CODE["tokenize"],
        jobs=job_file,
    message:
        "tokenize for {wildcards.model}"
    shell:
        f"RAYON_NUM_THREADS={{threads}} {command('tokenize/{wildcards.model}')}"


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
    localrule: True
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        spec=SPECS["audit"],
        code=CODE["audit"],
        jobs=job_file,
    message:
        "audit the data"
    shell:
        command("audit")


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
    localrule: True
    conda:
        "../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=growing(30),
    params:
        spec=SPECS["reviews"],
        code=CODE["reviews"],
        jobs=job_file,
    message:
        f"choose the {STUDY.data.wording.many} whose attention is drawn"
    shell:
        command("reviews")
