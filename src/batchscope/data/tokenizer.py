"""The tokenizer of a model: the pretrained one, or one trained on the train split for an encoder from scratch."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from batchscope.errors import UserError

SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
           "mask_token": "[MASK]"}  # fmt: skip
BYTES = 256


def pretrained_tokenizer(model: dict[str, Any], max_length: int) -> PreTrainedTokenizerFast:
    """The fast tokenizer of ``model["checkpoint"]`` (hub id with ``revision``, or folder); never remote code.

    Raises UserError if it cannot be loaded, is not a fast one, has no padding token, or if its model does not take
    ``max_length`` tokens.
    """
    checkpoint = model["checkpoint"]
    name = str(Path(checkpoint).expanduser()) if "revision" not in model else checkpoint
    try:
        revision = {"revision": model["revision"]} if "revision" in model else {}
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **revision)
        config = AutoConfig.from_pretrained(name, trust_remote_code=False, **revision)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"checkpoint: cannot load the tokenizer of {checkpoint!r}: {error}\n"
            "  For a hub id check the name, the revision and the network (`batchscope fetch` fills a cache for nodes "
            "without one); a folder needs config.json and tokenizer.json."
        ) from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"checkpoint: {checkpoint!r} has no fast tokenizer (tokenizer.json); choose one that has")
    if tokenizer.pad_token_id is None:
        raise UserError(f"checkpoint: the tokenizer of {checkpoint!r} has no padding token, as an encoder's should")
    limit = min(tokenizer.model_max_length, getattr(config, "max_position_embeddings", None) or max_length)
    if max_length > limit:
        raise UserError(f"data.max_length: {max_length} is above the {limit} tokens that {checkpoint!r} takes")
    return tokenizer


def trained_tokenizer(architecture: str, vocabulary_size: int, texts: list[str]) -> PreTrainedTokenizerFast:
    """Train a tokenizer of at most ``vocabulary_size`` entries on ``texts``, a pure function of its arguments.

    ``bert``: lower-case WordPiece; ``modernbert``: byte-level BPE, which needs an entry for every byte. Both put
    ``[CLS]`` before a text and ``[SEP]`` after it.
    """
    if architecture == "modernbert" and vocabulary_size < BYTES + len(SPECIAL):
        raise UserError(f"vocabulary_size: `modernbert` needs at least {BYTES + len(SPECIAL)}: one entry per byte")
    train = _trained_word_piece if architecture == "bert" else _trained_byte_level
    tokenizer = train(vocabulary_size, texts)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **SPECIAL
    )


def _trained_byte_level(vocabulary_size: int, texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _trained_word_piece(vocabulary_size: int, texts: list[str]) -> Tokenizer:
    """Left alone, the trainer numbers the ``##`` characters in the order of a randomly seeded hash map, which differs
    from process to process and decides ties between merges. Naming them beforehand fixes both; the vocabulary then
    moves to a fresh tokenizer, where they are ordinary entries."""
    tokenizer = _untrained_word_piece({"[UNK]": 0})
    alphabet, continuing = _characters(tokenizer, texts, limit=vocabulary_size // 4)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[*SPECIAL.values(), *(f"##{character}" for character in continuing)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _untrained_word_piece(tokenizer.get_vocab())


def _untrained_word_piece(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _characters(tokenizer: Tokenizer, texts: list[str], limit: int) -> tuple[list[str], list[str]]:
    """The ``limit`` most frequent characters of the words of ``texts``, and those of them that continue a word."""
    pieces = Counter(piece for text in texts for piece in tokenizer.normalizer.normalize_str(text).split())
    count: Counter[str] = Counter()
    continuing: set[str] = set()
    for piece, times in pieces.items():
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(piece):
            continuing.update(word[1:])
            for character in word:
                count[character] += times
    alphabet = sorted(count, key=lambda character: (-count[character], character))[:limit]
    return alphabet, sorted(continuing.intersection(alphabet))


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the tokenizer so that ``AutoTokenizer.from_pretrained(folder)`` gives it back; replaces ``folder``."""
    temporary = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    tokenizer.save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
