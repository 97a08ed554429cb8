# Tables, figures and the page, compiled from every run.


rule tables:
    input:
        of_all_runs("history.jsonl"),
        of_all_runs("train.json"),
        of_all_runs("metrics.json"),
        of_all_runs("predictions.parquet"),
        rules.audit.output,
    output:
        multiext(
            f"{STUDY_FOLDER}/tables/",
            "results.parquet",
            "history.parquet",
            "results.csv",
            "audit.csv",
        ),
        summary=report(
            f"{STUDY_FOLDER}/tables/summary.csv",
            category="Test accuracy",
            labels={"models": "all", "format": "table"},
            caption="../workflow/report/tables.rst",
        ),
        contrasts=report(
            f"{STUDY_FOLDER}/tables/contrasts.csv",
            category="Test accuracy",
            labels={"models": "all, contrasts", "format": "table"},
            caption="../workflow/report/tables.rst",
        ),
        cost=report(
            f"{STUDY_FOLDER}/tables/cost.csv",
            category="Cost",
            labels={"runs": "all", "format": "table"},
            caption="../workflow/report/tables.rst",
        ),
    log:
        f"{STUDY_FOLDER}/logs/tables.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/tables.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        study=subpath(output.summary, ancestor=2),
        spec=SPECS["tables"],
        code=CODE["tables"],
        record=f"{RECORDS}/tables.json",
    message:
        "compile the tables"
    shell:
        "python -m batchscope tables --spec {params.spec:q} --study {params.study:q}"
        " --code {params.code} --record {params.record:q} > {log:q} 2>&1"


rule figures:
    input:
        f"{STUDY_FOLDER}/tables/results.parquet",
        f"{STUDY_FOLDER}/tables/history.parquet",
        of_all_runs("attention/attention.npz"),
        of_all_runs("attention/measures.json"),
    output:
        [
            report(
                f"{STUDY_FOLDER}/figures/{figure.name}",
                category=figure.category,
                labels=figure.labels,
                caption=f"../workflow/report/{figure.caption}.rst",
            )
            for figure in figure_names(STUDY.figures_spec(CONTENT_MEMORY))
        ],
    log:
        f"{STUDY_FOLDER}/logs/figures.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/figures.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        study=subpath(output[0], ancestor=2),
        spec=SPECS["figures"],
        code=CODE["figures"],
        record=f"{RECORDS}/figures.json",
    message:
        "draw the figures"
    shell:
        "python -m batchscope figures --spec {params.spec:q} --study {params.study:q}"
        " --code {params.code} --record {params.record:q} > {log:q} 2>&1"


rule page:
    input:
        tables=rules.tables.output,
        figures=rules.figures.output,
        reviews=rules.reviews.output,
        audit=rules.audit.output,
        certificates=expand(rules.certify.output, model=STUDY.models),
    output:
        page=report(
            f"{STUDY_FOLDER}/report/index.html",
            category="Report",
            labels={"page": "the whole report"},
            caption="../workflow/report/report.rst",
        ),
        summary=f"{STUDY_FOLDER}/report/summary.md",
    log:
        f"{STUDY_FOLDER}/logs/report.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/report.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        study=subpath(output.page, ancestor=2),
        spec=SPECS["report"],
        code=CODE["report"],
        record=f"{RECORDS}/report.json",
    message:
        "write the report: {output.page}"
    shell:
        "python -m batchscope report --spec {params.spec:q} --study {params.study:q}"
        " --code {params.code} --record {params.record:q} > {log:q} 2>&1"
