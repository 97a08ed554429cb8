# Short trainings at larger batches from states of a run, where the config asks for them: they measure the critical batch size. A
# state that the run's training did not keep is replayed, so asking for branches later runs no training again.


rule branch:
    input:
        train=rules.tokenize.output.train,
        validation=rules.tokenize.output.validation,
        history=rules.train.output.history,
        facts=rules.train.output.facts,
        manifest=rules.train.output.manifest,
    output:
        f"{RUN}/branches.json",
    log:
        f"{STUDY_FOLDER}/logs/branch/{RUN_NAME}.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/branch/{RUN_NAME}.tsv"
    conda:
        "../envs/train.yaml"
    threads: STUDY.model_threads
    resources:
        mem_mb=growing(8000),
        runtime=growing(8 * 60),
        gpu=GPU,
    params:
        spec=spec_of("branch"),
        code=CODE["branch"],
        jobs=job_file,
        limit=LIMIT,
    message:
        f"branch {RUN_IN_WORDS}"
    shell:
        command(f"branch/{RUN_OF_JOB}", "--runtime {params.limit} --threads {threads}")
