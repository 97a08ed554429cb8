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
    conda:
        "../envs/train.yaml"
    threads: STUDY.model_threads
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
        gpu=GPU,
    params:
        tokens=subpath(input.train, parent=True),
        spec=lambda wildcards: SPECS[f"certify/{wildcards.model}"],
        code=CODE["certify"],
        record=f"{RECORDS}/certify/{{model}}.json",
        # A parameter function that takes `output` is not compared between runs.
        settings=lambda wildcards, output: canonical_json(
            {"device": STUDY.device} | STUDY.model_place(wildcards.model)
        ),
    message:
        "certify {wildcards.model}"
    shell:
        "python -m batchscope certify --spec {params.spec:q} --settings {params.settings:q}"
        " --tokens {params.tokens:q} --output {output:q} --threads {threads}"
        " --code {params.code} --record {params.record:q} > {log:q} 2>&1"
