# Once per model: are accumulated gradients those of the full batch, and what do the installed peers make of it?


rule certify:
    input:
        train=rules.tokenize.output.train,
    output:
        report(
            f"{STUDY_FOLDER}/certificates/{{model}}.json",
            category="Certificate",
            labels={"model": "{model}"},
            caption="../workflow/report/certificate.rst",
        ),
    log:
        f"{STUDY_FOLDER}/logs/certify/{{model}}.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/certify/{{model}}.tsv"
    # Before the trainings: a model that cannot be trained, saved or certified is told in its first minute.
    priority: 5
    conda:
        "../envs/train.yaml"
    threads: STUDY.model_threads
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
        gpu=GPU,
    params:
        spec=lambda wildcards: SPECS[f"certify/{wildcards.model}"],
        code=CODE["certify"],
        jobs=job_file,
    message:
        "certify {wildcards.model}"
    shell:
        command("certify/{wildcards.model}", "--threads {threads}")
