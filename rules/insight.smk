# Measures of finished runs that train nothing: attention over many reviews, calibration, errors, geometry of the loss.


rule attention_measures:
    input:
        tokenizer=rules.tokenize.output.tokenizer,
        test=rules.tokenize.output.test,
        best=rules.train.output.best,
    output:
        f"{RUN}/attention/heads.json",
    log:
        f"{STUDY_FOLDER}/logs/attention_measures/{RUN_NAME}.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/attention_measures/{RUN_NAME}.tsv"
    conda:
        "../envs/train.yaml"
    threads: STUDY.model_threads
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
        gpu=GPU,
    params:
        spec=STUDY.attention_measures_spec().fingerprint(),
        code=CODE["attention_measures"],
        jobs=job_file,
    message:
        f"measure the attention of {RUN_IN_WORDS}"
    shell:
        command(f"attention_measures/{RUN_OF_JOB}", "--threads {threads}")


rule divergence:
    input:
        of_all_runs("attention/heads.json"),
        of_all_runs("manifest.json"),
        of_all_runs("checkpoints/best.safetensors"),
        expand(f"{TOKENS}/test.arrow", model=STUDY.models),
    output:
        heads=update(f"{STUDY_FOLDER}/tables/attention_heads.csv"),
        ablation=update(f"{STUDY_FOLDER}/tables/ablation.csv"),
        divergence=update(f"{STUDY_FOLDER}/tables/divergence.csv"),
        layers=update(f"{STUDY_FOLDER}/tables/divergence_layers.csv"),
        ratio=report(
            update(f"{STUDY_FOLDER}/tables/divergence_ratio.csv"),
            category="Attention over the test set",
            labels={
                "model": "all",
                "shows": "batch size against seed",
                "format": "table",
            },
            caption="../workflow/report/divergence_ratio.rst",
        ),
    log:
        f"{STUDY_FOLDER}/logs/divergence.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/divergence.tsv"
    conda:
        "../envs/train.yaml"
    threads: STUDY.model_threads
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
        gpu=GPU,
    params:
        spec=SPECS.get("divergence"),
        code=CODE["divergence"],
        jobs=job_file,
    message:
        "compare the attention of the runs"
    shell:
        command("divergence", "--threads {threads}")


rule calibration:
    input:
        of_all_runs("predictions.parquet"),
    output:
        calibration=report(
            update(f"{STUDY_FOLDER}/tables/calibration.csv"),
            category="Calibration",
            labels={"models": "all", "format": "table"},
            caption="../workflow/report/calibration.rst",
        ),
        reliability=update(f"{STUDY_FOLDER}/tables/reliability.csv"),
    log:
        f"{STUDY_FOLDER}/logs/calibration.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/calibration.tsv"
    localrule: True
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=SPECS.get("calibration"),
        code=CODE["calibration"],
        jobs=job_file,
    message:
        "measure the calibration"
    shell:
        command("calibration")


rule errors:
    input:
        of_all_runs("predictions.parquet"),
        expand(f"{TOKENS}/test.arrow", model=STUDY.models),
        expand(f"{TOKENS}/tokenizer", model=STUDY.models),
        rules.corpus.output,
    output:
        errors=report(
            update(f"{STUDY_FOLDER}/tables/errors.csv"),
            category="Errors",
            labels={
                "models": "all, whole test set",
                "shows": "table",
                "format": "table",
            },
            caption="../workflow/report/errors.rst",
        ),
        hardest=report(
            update(f"{STUDY_FOLDER}/tables/hardest.csv"),
            category="Errors",
            labels={
                "models": "all, hardest in full",
                "shows": "table",
                "format": "table",
            },
            caption="../workflow/report/hardest.rst",
        ),
        others=[
            update(f"{STUDY_FOLDER}/tables/{name}.csv")
            for name in (
                "error_counts",
                "error_groups",
                "flips",
                "margins",
                "hardest_runs",
                *(["label_review"] if STUDY.data.label_review else []),
            )
        ],
    log:
        f"{STUDY_FOLDER}/logs/errors.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/errors.tsv"
    localrule: True
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=SPECS.get("errors"),
        code=CODE["errors"],
        jobs=job_file,
    message:
        "tell the errors"
    shell:
        command("errors")


rule geometry_measures:
    input:
        train=rules.tokenize.output.train,
        best=rules.train.output.best,
        last=rules.train.output.last,
    output:
        f"{RUN}/geometry.json",
    log:
        f"{STUDY_FOLDER}/logs/geometry_measures/{RUN_NAME}.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/geometry_measures/{RUN_NAME}.tsv"
    conda:
        "../envs/train.yaml"
    threads: STUDY.model_threads
    resources:
        mem_mb=growing(16000),
        runtime=growing(240),
        gpu=GPU,
    params:
        spec=STUDY.geometry_measures_spec().fingerprint(),
        code=CODE["geometry_measures"],
        jobs=job_file,
    message:
        f"measure the loss around {RUN_IN_WORDS}"
    shell:
        command(f"geometry_measures/{RUN_OF_JOB}", "--threads {threads}")


rule geometry:
    input:
        of_all_runs("geometry.json"),
        of_all_runs("checkpoints/best.safetensors"),
        of_all_runs("history.jsonl"),
        of_all_runs("metrics.json"),
        expand(f"{TOKENS}/train.arrow", model=STUDY.models),
    output:
        runs=report(
            update(f"{STUDY_FOLDER}/tables/geometry.csv"),
            category="Loss geometry",
            labels={"models": "all", "shows": "every checkpoint", "format": "table"},
            caption="../workflow/report/geometry.rst",
        ),
        correlations=report(
            update(f"{STUDY_FOLDER}/tables/geometry_correlations.csv"),
            category="Loss geometry",
            labels={
                "models": "all",
                "shows": "sharpness and accuracy",
                "format": "table",
            },
            caption="../workflow/report/geometry_correlations.rst",
        ),
        others=[
            update(f"{STUDY_FOLDER}/tables/geometry_{name}.csv")
            for name in ("pairs", "paths", "ratio")
        ],
    log:
        f"{STUDY_FOLDER}/logs/geometry.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/geometry.tsv"
    conda:
        "../envs/train.yaml"
    threads: STUDY.model_threads
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
        gpu=GPU,
    params:
        spec=SPECS.get("geometry"),
        code=CODE["geometry"],
        jobs=job_file,
    message:
        "compare the weights of the runs"
    shell:
        command("geometry", "--threads {threads}")


# The checkpoints of the epochs, which `keep: all` keeps, are named by the run's manifest.


rule cartography_measures:
    input:
        train=rules.tokenize.output.train,
        history=rules.train.output.history,
        manifest=rules.train.output.manifest,
    output:
        f"{RUN}/cartography.parquet",
    log:
        f"{STUDY_FOLDER}/logs/cartography_measures/{RUN_NAME}.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/cartography_measures/{RUN_NAME}.tsv"
    conda:
        "../envs/train.yaml"
    threads: STUDY.model_threads
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
        gpu=GPU,
    params:
        spec=STUDY.cartography_measures_spec().fingerprint(),
        code=CODE["cartography_measures"],
        jobs=job_file,
    message:
        f"follow the training examples of {RUN_IN_WORDS}"
    shell:
        command(f"cartography_measures/{RUN_OF_JOB}", "--threads {threads}")


rule cartography:
    input:
        of_all_runs("cartography.parquet"),
        of_all_runs("metrics.json"),
    output:
        examples=report(
            update(f"{STUDY_FOLDER}/tables/cartography.csv"),
            category="Errors",
            labels={
                "models": "all, training examples",
                "shows": "table",
                "format": "table",
            },
            caption="../workflow/report/cartography.rst",
        ),
        others=[
            update(f"{STUDY_FOLDER}/tables/cartography_{name}.csv")
            for name in ("regions", "pairs", "ratio")
        ],
    log:
        f"{STUDY_FOLDER}/logs/cartography.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/cartography.tsv"
    localrule: True
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        spec=SPECS.get("cartography"),
        code=CODE["cartography"],
        jobs=job_file,
    message:
        "map the training examples"
    shell:
        command("cartography")


# The embedding reads the margins of the predictions and the verdicts of `errors` over all runs.


rule features:
    input:
        test=rules.tokenize.output.test,
        best=rules.train.output.best,
    output:
        f"{RUN}/features.parquet",
    log:
        f"{STUDY_FOLDER}/logs/features/{RUN_NAME}.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/features/{RUN_NAME}.tsv"
    conda:
        "../envs/train.yaml"
    threads: STUDY.model_threads
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
        gpu=GPU,
    params:
        spec=spec_of("features"),
        code=CODE["features"],
        jobs=job_file,
    message:
        f"write the features of {RUN_IN_WORDS}"
    shell:
        command(f"features/{RUN_OF_JOB}", "--threads {threads}")


rule embedding:
    input:
        of_embedded_runs("features.parquet"),
        of_embedded_runs("predictions.parquet"),
        rules.errors.output.errors,
    output:
        points=report(
            update(f"{STUDY_FOLDER}/tables/embedding.csv"),
            category="Errors",
            labels={
                "models": "all, points of the embedding",
                "shows": "table",
                "format": "table",
            },
            caption="../workflow/report/errors_embedding.rst",
        ),
        quality=update(f"{STUDY_FOLDER}/tables/embedding_quality.csv"),
    log:
        f"{STUDY_FOLDER}/logs/embedding.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/embedding.tsv"
    localrule: True
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        spec=SPECS.get("embedding"),
        code=CODE["embedding"],
        jobs=job_file,
    message:
        f"embed the test {STUDY.data.wording.many}"
    shell:
        command("embedding")
