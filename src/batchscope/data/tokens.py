"""Tokens of one model, made once and read by every run: ``tokens/{model}/{split}.arrow``.

Writing needs the model's tokenizer; reading needs NumPy and Arrow alone, and maps the file into memory.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batchscope.data.records import SPLITS, read_corpus, read_split
from batchscope.errors import UserError
from batchscope.files import atomic

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BATCH = 1024


@dataclass(frozen=True)
class Tokens:
    """The N reviews of one split as a model reads them, L tokens each, in training order."""

    example_id: NDArray[np.int64]
    """[N] row numbers of the corpus."""
    label: NDArray[np.int64]
    """[N] indices into ``classes``."""
    input_ids: NDArray[np.uint16] | NDArray[np.int32]
    """[N, L] token ids, padded on the right; read-only."""
    length: NDArray[np.int32]
    """[N] tokens before the padding, special tokens included."""
    full_length: NDArray[np.int32]
    """[N] tokens of the whole review, special tokens included."""
    classes: list[str]
    """Class names in label order."""
    pad_token_id: int
    """The id that fills a row after its ``length``."""
    vocabulary_size: int
    """Every id is below it."""

    def __len__(self) -> int:
        return len(self.label)


def tokenize(spec: dict[str, Any], corpus: Path, split: Path, output_folder: Path) -> None:
    """Write ``train.arrow``, ``validation.arrow``, ``test.arrow`` and ``tokenizer/`` to ``output_folder``.

    ``spec`` (``Study.tokens_spec``) holds ``model`` (``checkpoint`` and perhaps ``revision``, or ``architecture`` and
    ``vocabulary_size``), ``max_length`` and ``truncation``. Raises UserError for an unusable tokenizer or length.
    """
    from batchscope.data.tokenizer import pretrained_tokenizer, save_tokenizer, trained_tokenizer

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
            input_ids=encoded[0],
            length=encoded[1],
            full_length=encoded[2],
            classes=reviews.classes,
            pad_token_id=tokenizer.pad_token_id,
            vocabulary_size=len(tokenizer),
        )
        write_tokens(tokens, output_folder / f"{name}.arrow")
    save_tokenizer(tokenizer, output_folder / "tokenizer")


def encode(
    tokenizer: "PreTrainedTokenizerFast", texts: list[str], max_length: int, truncation: str
) -> tuple[NDArray[Any], NDArray[np.int32], NDArray[np.int32]]:
    """Token ids [N, max_length], lengths [N] and full lengths [N] of N texts.

    The tokenizer's special tokens stand around what ``truncation`` keeps. For ``head`` the ids are those of
    ``tokenizer(texts, truncation=True, padding="max_length", max_length=max_length)``.
    """
    before, after = special_tokens_around(tokenizer)
    room = max_length - len(before) - len(after)
    kind = np.uint16 if len(tokenizer) <= np.iinfo(np.uint16).max + 1 else np.int32
    ids = np.full((len(texts), max_length), tokenizer.pad_token_id, dtype=kind)
    lengths, full_lengths = np.zeros((2, len(texts)), dtype=np.int32)
    for start in range(0, len(texts), BATCH):
        contents = tokenizer(texts[start : start + BATCH], add_special_tokens=False, verbose=False)["input_ids"]
        for row, content in enumerate(contents, start):
            kept = before + truncated(content, room, truncation) + after
            ids[row, : len(kept)] = kept
            lengths[row] = len(kept)
            full_lengths[row] = len(before) + len(content) + len(after)
    return ids, lengths, full_lengths


def special_tokens_around(tokenizer: "PreTrainedTokenizerFast") -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a text."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    ids, special = encoded["input_ids"], encoded["special_tokens_mask"]
    first = special.index(0)
    last = len(special) - special[::-1].index(0)
    return ids[:first], ids[last:]


def truncated(content: list[int], room: int, truncation: str) -> list[int]:
    """At most ``room`` of a text's own tokens: from its ``head``, its ``tail``, or a quarter from the head and the
    rest from the tail (``head_tail``)."""
    if len(content) <= room or truncation == "head":
        return content[:room]
    head = room // 4 if truncation == "head_tail" else 0
    return content[:head] + content[len(content) - (room - head) :]


def write_tokens(tokens: Tokens, path: Path) -> None:
    """Write one Arrow IPC file of one uncompressed batch, so that reading it copies nothing."""
    schema = pa.schema(
        [
            ("example_id", pa.int64()),
            ("label", pa.int64()),
            ("input_ids", pa.list_(pa.from_numpy_dtype(tokens.input_ids.dtype), tokens.input_ids.shape[1])),
            ("length", pa.int32()),
            ("full_length", pa.int32()),
        ],
        metadata={
            "classes": json.dumps(tokens.classes, ensure_ascii=False),
            "pad_token_id": str(tokens.pad_token_id),
            "vocabulary_size": str(tokens.vocabulary_size),
        },
    )
    rows = pa.FixedSizeListArray.from_arrays(pa.array(tokens.input_ids.ravel()), tokens.input_ids.shape[1])
    columns = [tokens.example_id, tokens.label, rows, tokens.length, tokens.full_length]
    batch = pa.record_batch([pa.array(column) for column in columns], schema=schema)
    with atomic(path) as temporary, pa.ipc.new_file(temporary, schema) as writer:
        writer.write_batch(batch)


def load_tokens(path: Path) -> Tokens:
    """Map one split's tokens into memory. Raises UserError naming the file if it is missing or damaged."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batch, metadata = reader.get_batch(0), reader.schema.metadata
        batch.validate(full=True)
        rows = batch["input_ids"]
        return Tokens(
            example_id=batch["example_id"].to_numpy(),
            label=batch["label"].to_numpy(),
            input_ids=rows.values.to_numpy().reshape(len(rows), rows.type.list_size),
            length=batch["length"].to_numpy(),
            full_length=batch["full_length"].to_numpy(),
            classes=json.loads(metadata[b"classes"]),
            pad_token_id=int(metadata[b"pad_token_id"]),
            vocabulary_size=int(metadata[b"vocabulary_size"]),
        )
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; delete it and run again to make it anew") from None
