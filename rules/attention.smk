# Attention of each run's best checkpoint on the chosen reviews, and its maps.


rule attention:
    input:
        tokenizer=rules.tokenize.output.tokenizer,
        validation=rules.tokenize.output.validation,
        best=rules.train.output.best,
        reviews=rules.reviews.output,
    output:
        weights=f"{RUN}/attention/attention.npz",
        measures=f"{RUN}/attention/measures.json",
    log:
        f"{STUDY_FOLDER}/logs/attention/{RUN_NAME}.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/attention/{RUN_NAME}.tsv"
    conda:
        "../envs/train.yaml"
    threads: STUDY.model_threads
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
        gpu=GPU,
    params:
        spec=STUDY.attention_spec().fingerprint(),
        code=CODE["attention"],
        jobs=job_file,
    message:
        f"compute attention of {RUN_IN_WORDS}"
    shell:
        command(f"attention/{RUN_OF_JOB}", "--threads {threads}")


rule maps:
    input:
        weights=rules.attention.output.weights,
        measures=rules.attention.output.measures,
    output:
        report(
            directory(f"{RUN}/attention/maps"),
            patterns=["{review}_{layers}.png"],
            category="Attention of each run",
            subcategory="{model}",
            labels={
                "target batch size": "{batch}",
                "LR policy": "{policy}",
                **({"budget": "{budget}"} if STUDY.several_budgets else {}),
                "seed": "{seed}",
                "review": "{review}",
                "layers": "{layers}",
            },
            caption="../workflow/report/attention_maps.rst",
        ),
    log:
        f"{STUDY_FOLDER}/logs/maps/{RUN_NAME}.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/maps/{RUN_NAME}.tsv"
    # Nothing waits for them: they fill the cores that the compiling of the report leaves idle.
    priority: -10
    localrule: True
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=STUDY.maps_spec().fingerprint(),
        code=CODE["maps"],
        jobs=job_file,
    message:
        f"draw the attention maps of {RUN_IN_WORDS}"
    shell:
        command(f"maps/{RUN_OF_JOB}")
