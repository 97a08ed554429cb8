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
            category="Attention over many reviews",
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
    output:
        errors=report(
            update(f"{STUDY_FOLDER}/tables/errors.csv"),
            category="Errors",
            labels={"table": "every test review"},
            caption="../workflow/report/errors.rst",
        ),
        others=[
            update(f"{STUDY_FOLDER}/tables/{name}")
            for name in ("error_groups.csv", "flips.csv", "margins.csv")
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
