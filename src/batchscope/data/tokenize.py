"""The stage that makes one model's tokens, once for all its runs."""

from pathlib import Path
from typing import Any

from batchscope.data.encode import encode
from batchscope.data.tables import SPLITS, read_corpus, read_split
from batchscope.data.tokenizer import pretrained_tokenizer, save_tokenizer, trained_tokenizer
from batchscope.data.tokens import Tokens, write_tokens


def tokenize(spec: dict[str, Any], corpus: Path, split: Path, output_folder: Path) -> None:
    """Write ``train.arrow``, ``validation.arrow``, ``test.arrow`` and ``tokenizer/`` to ``output_folder``.

    ``spec`` (``Study.tokens_spec``) holds ``model`` (``checkpoint`` and perhaps ``revision``, or ``architecture`` and
    ``vocabulary_size``), ``max_length`` and ``truncation``. Raises UserError for an unusable tokenizer or length.
    """
    reviews, ids = read_corpus(corpus), read_split(split)
    model, max_length = spec["model"], spec["max_length"]
    if "architecture" in model:
        texts = reviews.texts_of(ids["train"])
        tokenizer = trained_tokenizer(model["architecture"], model["vocabulary_size"], texts)
    else:
        tokenizer = pretrained_tokenizer(model, max_length)
    output_folder.mkdir(parents=True, exist_ok=True)
    for name in SPLITS:
        encoded = encode(tokenizer, reviews.texts_of(ids[name]), max_length, spec["truncation"])
        tokens = Tokens(
            example_id=ids[name],
            label=reviews.label[ids[name]],
            input_ids=encoded.input_ids,
            length=encoded.length,
            truncated=encoded.truncated,
            classes=reviews.classes,
            pad_token_id=tokenizer.pad_token_id,
            vocabulary_size=len(tokenizer),
        )
        write_tokens(tokens, output_folder / f"{name}.arrow")
    save_tokenizer(tokenizer, output_folder / "tokenizer")
