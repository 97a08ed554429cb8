"""The tokenizer of a model: the pretrained one, or one trained on the train split for an encoder from scratch."""

import shutil
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerFast

from batchscope.data.decoding import POINTER
from batchscope.data.spec import SHORTEST
from batchscope.data.tokenizer_errors import explained
from batchscope.errors import UserError
from batchscope.files import parse_json
from batchscope.model.folder import check_described
from batchscope.model.spec import Architecture, ModelSpec

SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
           "mask_token": "[MASK]"}  # fmt: skip
BYTES = 256
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("vocab.txt", "merges.txt", "tokenizer.model", "sentencepiece.bpe.model", "spiece.model", "spm.model"),
)
ADVICE = (
    "For a hub id check the name, the revision and the network (`batchscope fetch` fills a cache for nodes without "
    "one); a folder needs sound config.json and tokenizer.json."
)
POSITIONS_AFTER_PADDING = (
    *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "camembert", "xmod", "data2vec-text"),
    *("longformer", "mpnet", "esm", "ibert", "luke", "mluke", "lilt", "layoutlmv3", "markuplm"),
)
"""Models whose learned positions begin after that of the padding token: they hold fewer tokens than positions."""
UNLIMITED = 10**9
HIGHEST_ID = 2**24
"""No vocabulary is as large, and `tokenizers` takes minutes to write one with a gap of billions."""


def pretrained_tokenizer(model: ModelSpec, max_length: int) -> PreTrainedTokenizerFast:
    """Load the fast tokenizer of a checkpoint; code from the hub is never run.

    Raises UserError if it cannot be loaded, is not a fast one, has no vocabulary or no padding token, or if its model
    does not take ``max_length`` tokens.
    """
    checkpoint = model.checkpoint
    assert checkpoint is not None
    name = str(Path(checkpoint).expanduser()) if model.revision is None else checkpoint
    if model.revision is None:
        check_described(Path(name))
        _check_files(Path(name))
    revision = {} if model.revision is None else {"revision": model.revision}
    with explained(f"checkpoint: cannot load the tokenizer of {checkpoint!r}", ADVICE):
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **revision)
        config = AutoConfig.from_pretrained(name, trust_remote_code=False, **revision)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"checkpoint: {checkpoint!r} has no fast tokenizer (tokenizer.json); choose one that has")
    vocabulary = tokenizer.get_vocab()
    if set(vocabulary) <= set(tokenizer.all_special_tokens):
        raise UserError(
            f"checkpoint: the tokenizer of {checkpoint!r} has no vocabulary besides its special tokens; copy the files "
            "of its tokenizer, tokenizer.json above all, into the folder"
        )
    last = max(vocabulary, key=lambda token: vocabulary[token])
    if vocabulary[last] > HIGHEST_ID:
        raise UserError(
            f"checkpoint: the tokenizer of {checkpoint!r} gives {last!r} the id {vocabulary[last]:,}, far above its "
            f"{len(vocabulary):,} tokens; correct or copy again its tokenizer.json"
        )
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"checkpoint: the tokenizer of {checkpoint!r} has no padding token; name one of its tokens as `pad_token` "
            "in tokenizer_config.json"
        )
    limit, reason = longest_input(tokenizer, config)
    if limit is not None and max_length > limit:
        enough = limit >= SHORTEST
        remedy = f"set it to {limit} or less" if enough else f"it is at least {SHORTEST}, so choose another model"
        raise UserError(
            f"data.max_length: {max_length} is above the {limit} tokens that {checkpoint!r} takes{reason}; {remedy}"
        )
    return tokenizer


def longest_input(tokenizer: PreTrainedTokenizerFast, config: PretrainedConfig) -> tuple[int | None, str]:
    """The most tokens that tokenizer and model take, None if any number, and a reason where it is not plain.

    Huge numbers, zero and -1 are how checkpoints say that there is no limit.
    """
    positions = getattr(config, "max_position_embeddings", None)
    learned = getattr(config, "position_embedding_type", "absolute") == "absolute"
    kept = 0
    if config.model_type in POSITIONS_AFTER_PADDING and learned:
        padding = 1 if config.model_type == "mpnet" else getattr(config, "pad_token_id", None) or 0
        kept = padding + 1
    limits: list[tuple[int, str]] = []
    if isinstance(positions, int) and positions > 0:
        reason = f" (of its {positions} positions {kept} cannot hold a token)" if kept else ""
        limits.append((positions - kept, reason))
    length = tokenizer.model_max_length
    if isinstance(length, bool) or not isinstance(length, int | float):
        raise UserError(f"checkpoint: `model_max_length` in tokenizer_config.json must be a number, not {length!r}")
    if 0 < length < UNLIMITED:
        limits.append((int(length), " (`model_max_length` of its tokenizer)"))
    return min(limits, default=(None, ""))


def _check_files(folder: Path) -> None:
    """Raises UserError naming a file of the tokenizer that is damaged or is a Git LFS pointer."""
    for name in ("config.json", *TOKENIZER_FILES):
        file = folder / name
        if not file.is_file():
            continue
        content = file.read_bytes()
        if content.startswith(POINTER):
            raise UserError(f"checkpoint: {file} is a Git LFS pointer, not the file; run `git lfs pull`")
        if file.suffix == ".json":
            try:
                value = parse_json(content.decode())
            except ValueError as error:
                raise UserError(
                    f"checkpoint: {file} is damaged or cut off, it is not valid JSON: {error}; copy it again"
                ) from None
            if not isinstance(value, dict):
                raise UserError(f"checkpoint: {file} is damaged: it must hold one JSON object; copy it again")


def trained_tokenizer(architecture: Architecture, vocabulary_size: int, texts: list[str]) -> PreTrainedTokenizerFast:
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
