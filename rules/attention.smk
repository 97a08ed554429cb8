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
        f"{STUDY_FOLDER}/logs/attention/{{model}}/bs{{batch}}/{{policy}}/seed{{seed}}.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/attention/{{model}}/bs{{batch}}/{{policy}}/seed{{seed}}.tsv"
    conda:
        "../envs/train.yaml"
    threads: MODEL_THREADS
    resources:
        mem_mb=8000,
        runtime=60,
        gpu=GPU,
    params:
        tokens=subpath(input.tokenizer, parent=True),
        run=subpath(output.measures, ancestor=2),
        state=f"{STUDY_FOLDER}/state",
        spec=canonical_json(STUDY.attention_spec()),
        code=code_hash("batchscope.insight.attention"),
        device=lambda wildcards, threads: STUDY.device,
    message:
        "attend {wildcards.model}, target batch size {wildcards.batch}, {wildcards.policy} LR, seed {wildcards.seed}"
    shell:
        "python -m batchscope attention --spec {params.spec:q} --code {params.code} --tokens {params.tokens:q}"
        " --reviews {input.reviews:q} --run {params.run:q} --state {params.state:q} --device {params.device} --threads {threads} > {log:q} 2>&1"


rule maps:
    input:
        weights=rules.attention.output.weights,
        measures=rules.attention.output.measures,
    output:
        [
            report(
                f"{RUN}/attention/{name}_{part}.png",
                category="Attention of each run",
                subcategory="{model}",
                labels={
                    "target batch size": "{batch}",
                    "LR policy": "{policy}",
                    "seed": "{seed}",
                    "review": name.replace("_", " "),
                    "shows": shows,
                },
                caption=f"../workflow/report/{caption}.rst",
            )
            for name in STUDY.review_names()
            for part, shows, caption in [
                ("last", "last layer", "attention_last"),
                ("layers", "all layers", "attention_layers"),
            ]
        ],
    log:
        f"{STUDY_FOLDER}/logs/maps/{{model}}/bs{{batch}}/{{policy}}/seed{{seed}}.log",
    benchmark:
        f"{STUDY_FOLDER}/benchmarks/maps/{{model}}/bs{{batch}}/{{policy}}/seed{{seed}}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        run=subpath(input.measures, ancestor=2),
        names=STUDY.review_names(),
        code=code_hash("batchscope.report.maps"),
    message:
        "draw the attention maps of {wildcards.model}, target batch size {wildcards.batch}, {wildcards.policy} LR, seed {wildcards.seed}"
    shell:
        "python -m batchscope maps --run {params.run:q} --names {params.names:q} > {log:q} 2>&1"
