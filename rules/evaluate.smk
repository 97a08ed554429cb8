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
        f"{STUDY_FOLDER}/logs/evaluate/{RUN_NAME}.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/evaluate/{RUN_NAME}.tsv"
    conda:
        "../envs/train.yaml"
    threads: STUDY.model_threads
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
        gpu=GPU,
    params:
        spec=STUDY.evaluation_spec().fingerprint(),
        code=CODE["evaluate"],
        jobs=job_file,
    message:
        f"evaluate {RUN_IN_WORDS}"
    shell:
        command(f"evaluate/{RUN_OF_JOB}", "--threads {threads}")
