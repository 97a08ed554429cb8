# One training per unique run. Saved states are in state/, which Snakemake does not know: it outlives a failed job.
# A run's files are marked `update` so that they are still there when its job starts: where spec, code and tokens turn out
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
        f"{STUDY_FOLDER}/logs/train/{RUN_NAME}.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/train/{RUN_NAME}.tsv"
    conda:
        "../envs/train.yaml"
    threads: STUDY.model_threads
    resources:
        mem_mb=growing(8000),
        runtime=growing(8 * 60),
        gpu=GPUS_PER_TRAINING,
    params:
        spec=spec_of("train"),
        code=CODE["train"],
        jobs=job_file,
        limit=LIMIT,
    message:
        f"train {RUN_IN_WORDS}"
    shell:
        command(f"train/{RUN_OF_JOB}", "--runtime {params.limit} --threads {threads}")
