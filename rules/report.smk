# Tables, figures and the page, compiled from every run.


rule tables:
    input:
        of_all_runs("history.jsonl"),
        of_all_runs("train.json"),
        of_all_runs("metrics.json"),
        of_all_runs("predictions.parquet"),
        of_all_runs("manifest.json"),
        of_all_runs("attention/measures.json"),
        of_branched_runs("branches.json"),
        rules.audit.output,
        rules.reviews.output,
        expand(rules.certify.output, model=STUDY.models),
    output:
        [update(f"{STUDY_FOLDER}/tables/{name}") for name in PLAIN_TABLES],
        summary=report(
            update(f"{STUDY_FOLDER}/tables/summary.csv"),
            category="Test accuracy",
            labels={"models": "all", "format": "table"},
            caption="../workflow/report/tables.rst",
        ),
        contrasts=report(
            update(f"{STUDY_FOLDER}/tables/contrasts.csv"),
            category="Test accuracy",
            labels={"models": "all, contrasts", "format": "table"},
            caption="../workflow/report/tables.rst",
        ),
        cost=report(
            update(f"{STUDY_FOLDER}/tables/cost.csv"),
            category="Cost",
            labels={"runs": "all", "format": "table"},
            caption="../workflow/report/tables.rst",
        ),
    log:
        f"{STUDY_FOLDER}/logs/tables.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/tables.tsv"
    localrule: True
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        spec=SPECS["tables"],
        code=CODE["tables"],
        jobs=job_file,
    message:
        "compile the tables"
    shell:
        command("tables")


rule figures:
    input:
        f"{STUDY_FOLDER}/tables/results.parquet",
        f"{STUDY_FOLDER}/tables/history.parquet",
        f"{STUDY_FOLDER}/tables/branches.csv" if BRANCHED_RUNS else [],
        rules.calibration.output if STUDY.insight.calibration.enabled else [],
        rules.geometry.output if STUDY.insight.geometry.enabled else [],
        rules.cartography.output if STUDY.insight.cartography.enabled else [],
        rules.divergence.output if STUDY.insight.attention.enabled else [],
        rules.errors.output if STUDY.insight.errors.enabled else [],
        rules.embedding.output if EMBEDDED_CELLS else [],
        of_all_runs("attention/attention.npz"),
        of_all_runs("attention/measures.json"),
    output:
        [
            report(
                update(f"{STUDY_FOLDER}/figures/{figure.name}"),
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
    localrule: True
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        spec=SPECS["figures"],
        code=CODE["figures"],
        jobs=job_file,
    message:
        "draw the figures"
    shell:
        command("figures")


rule page:
    input:
        of_all_runs("attention/attention.npz"),
        tables=rules.tables.output,
        calibration=(
            rules.calibration.output if STUDY.insight.calibration.enabled else []
        ),
        geometry=rules.geometry.output if STUDY.insight.geometry.enabled else [],
        cartography=(
            rules.cartography.output if STUDY.insight.cartography.enabled else []
        ),
        divergence=rules.divergence.output if STUDY.insight.attention.enabled else [],
        errors=rules.errors.output if STUDY.insight.errors.enabled else [],
        embedding=rules.embedding.output if EMBEDDED_CELLS else [],
        figures=rules.figures.output,
        reviews=rules.reviews.output,
        audit=rules.audit.output,
        certificates=expand(rules.certify.output, model=STUDY.models),
    output:
        page=report(
            update(f"{STUDY_FOLDER}/report/index.html"),
            category="Report",
            labels={"page": "the whole report"},
            caption="../workflow/report/report.rst",
        ),
        summary=update(f"{STUDY_FOLDER}/report/summary.md"),
    log:
        f"{STUDY_FOLDER}/logs/report.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/report.tsv"
    localrule: True
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        spec=SPECS["report"],
        code=CODE["report"],
        jobs=job_file,
    message:
        "write the report: {output.page}"
    shell:
        command("report")
