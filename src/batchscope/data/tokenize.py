"""The stage that makes one model's tokens, once for all its runs."""

import logging
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from batchscope.data.encode import Encoded, encode, needed_embeddings
from batchscope.data.spec import TokensSpec
from batchscope.data.tables import SPLITS, read_corpus, read_split
from batchscope.data.tokenizer import pretrained_tokenizer, save_tokenizer, trained_tokenizer
from batchscope.data.tokens import Tokens, write_tokens

log = logging.getLogger(__name__)
MANY_UNKNOWN = 0.2


def tokenize(spec: TokensSpec, corpus: Path, split: Path, output_folder: Path) -> None:
    """Write ``train.arrow``, ``validation.arrow``, ``test.arrow`` and ``tokenizer/`` to ``output_folder``.

    Raises UserError for an unusable tokenizer or length.
    """
    reviews, ids = read_corpus(corpus), read_split(split)
    model = spec.model
    if model.architecture is not None:
        assert model.vocabulary_size is not None
        tokenizer = trained_tokenizer(model.architecture, model.vocabulary_size, reviews.texts_of(ids["train"]))
    else:
        tokenizer = pretrained_tokenizer(model, spec.max_length)
    output_folder.mkdir(parents=True, exist_ok=True)
    for name in SPLITS:
        encoded = encode(tokenizer, reviews.texts_of(ids[name]), spec.max_length, spec.truncation)
        _warn_of_unknown(tokenizer, encoded, name)
        tokens = Tokens(
            example_id=ids[name],
            label=reviews.label[ids[name]],
            input_ids=encoded.input_ids,
            length=encoded.length,
            truncated=encoded.truncated,
            classes=reviews.classes,
            pad_token_id=tokenizer.pad_token_id,
            vocabulary_size=needed_embeddings(tokenizer),
        )
        write_tokens(tokens, output_folder / f"{name}.arrow")
    save_tokenizer(tokenizer, output_folder / "tokenizer")


def _warn_of_unknown(tokenizer: PreTrainedTokenizerFast, encoded: Encoded, split: str) -> None:
    """Warns if much of the texts is unknown to the tokenizer: such reviews look alike to the model."""
    if tokenizer.unk_token_id is None:
        return
    unknown = int((encoded.input_ids == tokenizer.unk_token_id).sum())
    share = unknown / int(encoded.length.sum(dtype=np.int64))
    if tokenizer.unk_token_id != tokenizer.pad_token_id and share > MANY_UNKNOWN:
        log.warning(f"the tokenizer does not know {share:.0%} of the tokens of the {split} split")
