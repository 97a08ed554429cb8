"""Tokens are those of the model's own tokenizer, cut as asked, and are read back without a copy."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertConfig, PreTrainedTokenizerFast

from batchscope.data.encode import encode, shortened
from batchscope.data.spec import SyntheticSpec, TokensSpec
from batchscope.data.synthetic import synthetic_reviews
from batchscope.data.tables import SPLITS, Corpus, write_corpus, write_split
from batchscope.data.tokenize import tokenize
from batchscope.data.tokenizer import longest_input, save_tokenizer, trained_tokenizer
from batchscope.data.tokens import Tokens, load_tokens, write_tokens
from batchscope.errors import UserError
from batchscope.model.spec import ModelSpec

TEXTS = [review.text for review in synthetic_reviews(SyntheticSpec(reviews=60, seed=5, label_noise=0.0))]
TEXTS += ["Short.", "naïve café — 东京 🎬 <br />", "x" * 300]
ARCHITECTURES = ["bert", "modernbert"]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return trained_tokenizer(request.param, 500, TEXTS[:50])


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path]:
    count = len(TEXTS)
    write_corpus(
        Corpus(pa.chunked_array([TEXTS]), np.arange(count) % 2, np.array(["train"] * count), ["neg", "pos"]),
        tmp_path / "corpus.parquet",
    )
    order = np.random.default_rng(0).permutation(count)
    write_split(dict(zip(SPLITS, np.split(order, [40, 52]), strict=True)), tmp_path / "split.parquet")
    return tmp_path / "corpus.parquet", tmp_path / "split.parquet"


def spec(**model: object) -> TokensSpec:
    return TokensSpec(model=ModelSpec.read(model), max_length=32, truncation="head")


def checkpoint(folder: Path, tokenizer: PreTrainedTokenizerFast, **config: object) -> Path:
    tokenizer.save_pretrained(folder)
    BertConfig(vocab_size=len(tokenizer), **config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("max_length", [8, 32, 400])
def test_head_is_what_the_tokenizer_itself_truncates(tokenizer: PreTrainedTokenizerFast, max_length: int) -> None:
    encoded = encode(tokenizer, TEXTS, max_length, "head")
    theirs = tokenizer(TEXTS, truncation=True, padding="max_length", max_length=max_length)
    assert encoded.input_ids.tolist() == theirs["input_ids"]
    assert encoded.length.tolist() == [sum(mask) for mask in theirs["attention_mask"]]
    assert encoded.truncated.tolist() == [len(each) > max_length for each in tokenizer(TEXTS)["input_ids"]]


def reference_ids(tokenizer: PreTrainedTokenizerFast, text: str, max_length: int, truncation: str) -> list[int]:
    whole = tokenizer(text)["input_ids"]
    content, room = whole[1:-1], max_length - 2
    if len(content) > room:
        kept = {"head": [*range(room)], "tail": [*range(len(content) - room, len(content))]}
        first = room // 4
        kept["head_tail"] = [*range(first), *range(len(content) - room + first, len(content))]
        content = [content[place] for place in kept[truncation]]
    ids = [tokenizer.cls_token_id, *content, tokenizer.sep_token_id]
    return ids + [tokenizer.pad_token_id] * (max_length - len(ids))


@pytest.mark.parametrize("truncation", ["head", "tail", "head_tail"])
def test_special_tokens_stand_around_what_is_kept(tokenizer: PreTrainedTokenizerFast, truncation: str) -> None:
    encoded = encode(tokenizer, TEXTS, 30, truncation)
    assert encoded.input_ids.tolist() == [reference_ids(tokenizer, text, 30, truncation) for text in TEXTS]


def test_truncation_keeps_the_right_ends() -> None:
    content = list(range(100))
    assert shortened(content, 8, "head") == content[:8]
    assert shortened(content, 8, "tail") == content[92:]
    assert shortened(content, 8, "head_tail") == [0, 1, *range(94, 100)]
    for truncation in ("head", "tail", "head_tail"):
        assert shortened(content[:8], 8, truncation) == content[:8]


def test_a_trained_tokenizer_comes_back_from_its_folder(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    again = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert again(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert (again.pad_token, again.cls_token, again.sep_token) == ("[PAD]", "[CLS]", "[SEP]")
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer"]


def test_a_trained_tokenizer_keeps_to_its_size(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer) <= 500
    assert set(tokenizer.get_added_vocab()) == {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}


def test_byte_level_loses_no_character_and_word_piece_lowers_the_case() -> None:
    byte_level = trained_tokenizer("modernbert", 300, TEXTS[:50])
    for text in TEXTS:
        assert byte_level.decode(byte_level(text)["input_ids"], skip_special_tokens=True) == text
    word_piece = trained_tokenizer("bert", 500, TEXTS[:50])
    assert word_piece("THE Film")["input_ids"] == word_piece("the film")["input_ids"]


def test_training_gives_the_same_tokenizer_in_every_process() -> None:
    """In this one and in a fresh one, which hashes strings otherwise."""
    code = (
        "import json\nfrom batchscope.data.tokenizer import trained_tokenizer\n"
        "from batchscope.data.synthetic import synthetic_reviews\nfrom batchscope.data.spec import SyntheticSpec\n"
        "texts = [r.text for r in synthetic_reviews(SyntheticSpec(reviews=60, seed=5, label_noise=0.0))]\n"
        f"print(json.dumps([trained_tokenizer(name, 300, texts).get_vocab() for name in {ARCHITECTURES!r}]))"
    )
    afresh = os.environ | {"PYTHONHASHSEED": "1"}
    said = subprocess.run([sys.executable, "-c", code], env=afresh, capture_output=True, check=True).stdout
    assert json.loads(said) == [trained_tokenizer(name, 300, TEXTS[:60]).get_vocab() for name in ARCHITECTURES]


def test_the_tokenizer_is_trained_on_the_train_split_alone(data: tuple[Path, Path], tmp_path: Path) -> None:
    tokenize(spec(architecture="bert", vocabulary_size=300), *data, tmp_path / "tokens")
    train = load_tokens(tmp_path / "tokens" / "train.arrow")
    expected = trained_tokenizer("bert", 300, [TEXTS[number] for number in train.example_id])
    assert AutoTokenizer.from_pretrained(tmp_path / "tokens" / "tokenizer").get_vocab() == expected.get_vocab()


def test_files_follow_the_split_and_are_mapped(data: tuple[Path, Path], tmp_path: Path) -> None:
    tokenize(spec(architecture="bert", vocabulary_size=300), *data, tmp_path / "tokens")
    order = np.split(np.random.default_rng(0).permutation(len(TEXTS)), [40, 52])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokens" / "tokenizer")
    for name, ids in zip(SPLITS, order, strict=True):
        tokens = load_tokens(tmp_path / "tokens" / f"{name}.arrow")
        assert tokens.example_id.tolist() == ids.tolist()
        assert tokens.label.tolist() == (ids % 2).tolist()
        assert tokens.input_ids.dtype == np.uint16
        assert not tokens.input_ids.flags.owndata
        assert tokens.input_ids.tolist() == encode(tokenizer, [TEXTS[n] for n in ids], 32, "head").input_ids.tolist()
        assert (tokens.classes, tokens.pad_token_id) == (["neg", "pos"], tokenizer.pad_token_id)
        assert tokens.vocabulary_size == len(tokenizer)
        assert [row[length:].tolist() for row, length in zip(tokens.input_ids, tokens.length, strict=True)] == [
            [tokens.pad_token_id] * (32 - length) for length in tokens.length
        ]


def test_a_tokenizer_of_another_script_is_warned_of(
    data: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoint(tmp_path / "model", trained_tokenizer("bert", 300, ["чайник кажется тёплым"] * 9))
    tokenize(spec(checkpoint=str(folder), content="…"), *data, tmp_path / "tokens")
    assert "% of the tokens of the train split" in caplog.text


def test_large_vocabularies_are_written_as_int32(tmp_path: Path) -> None:
    ids = np.array([[70_000, 1], [2, 0]], dtype=np.int32)
    one = np.ones(2, dtype=np.int32)
    write_tokens(Tokens(np.arange(2), np.arange(2), ids, one, one > 0, ["a", "b"], 0, 70_001), tmp_path / "a.arrow")
    assert load_tokens(tmp_path / "a.arrow").input_ids.tolist() == ids.tolist()


def test_ids_that_are_left_out_count(data: tuple[Path, Path], tmp_path: Path) -> None:
    """A tokenizer of few entries may have a high id; it needs as many embeddings, and more than 16 bits."""
    folder = checkpoint(tmp_path / "model", trained_tokenizer("bert", 300, TEXTS))
    described = json.loads((folder / "tokenizer.json").read_text())
    described["model"]["vocab"]["film"] = 70_000
    (folder / "tokenizer.json").write_text(json.dumps(described))
    tokenize(spec(checkpoint=str(folder), content="…"), *data, tmp_path / "tokens")
    train = load_tokens(tmp_path / "tokens" / "train.arrow")
    assert train.input_ids.max() == 70_000 and train.vocabulary_size == 70_001


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_damaged_file_is_named(data: tuple[Path, Path], tmp_path: Path, kept: float) -> None:
    tokenize(spec(architecture="bert", vocabulary_size=300), *data, tmp_path / "tokens")
    file = tmp_path / "tokens" / "train.arrow"
    file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    with pytest.raises(UserError, match=r"train\.arrow"):
        load_tokens(file)
    with pytest.raises(UserError, match=r"missing\.arrow"):
        load_tokens(tmp_path / "missing.arrow")


def test_reading_needs_neither_torch_nor_transformers() -> None:
    code = "import sys, batchscope.data.tokens; print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "[]\n"


def test_a_checkpoint_folder_keeps_its_tokenizer(
    data: tuple[Path, Path], tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    folder = checkpoint(tmp_path / "model", tokenizer)
    tokenize(spec(checkpoint=str(folder), content="…"), *data, tmp_path / "tokens")
    tokens = load_tokens(tmp_path / "tokens" / "test.arrow")
    assert (
        tokens.input_ids.tolist()
        == encode(tokenizer, [TEXTS[n] for n in tokens.example_id], 32, "head").input_ids.tolist()
    )


@pytest.mark.parametrize(
    ("taken", "remedy"), [(16, "set it to 16 or less"), (5, "at least 8, so choose another model")]
)
@pytest.mark.parametrize("limit", ["tokenizer", "model"])
def test_a_length_beyond_the_model_is_refused(
    data: tuple[Path, Path], tmp_path: Path, limit: str, taken: int, remedy: str
) -> None:
    tokenizer = trained_tokenizer("bert", 300, TEXTS)
    if limit == "tokenizer":
        tokenizer.model_max_length = taken
    changed = {"max_position_embeddings": taken} if limit == "model" else {}
    folder = checkpoint(tmp_path / "model", tokenizer, **changed)
    with pytest.raises(UserError, match=rf"data\.max_length: 32 is above the {taken} tokens that .*{remedy}"):
        tokenize(spec(checkpoint=str(folder), content="…"), *data, tmp_path / "tokens")


def test_a_tokenizer_without_padding_is_refused(data: tuple[Path, Path], tmp_path: Path) -> None:
    plain = Tokenizer(models.WordLevel({"[UNK]": 0, "film": 1}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = checkpoint(tmp_path / "model", PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]"))
    with pytest.raises(UserError, match="no padding token"):
        tokenize(spec(checkpoint=str(folder), content="…"), *data, tmp_path / "tokens")


def test_an_id_far_above_the_vocabulary_is_refused_at_once(data: tuple[Path, Path], tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model", trained_tokenizer("bert", 300, TEXTS))
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["zzz"] = 2**31
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"gives 'zzz' the id 2,147,483,648, far above its 3\d\d tokens"):
        tokenize(spec(checkpoint=str(folder), content="…"), *data, tmp_path / "tokens")


def test_an_empty_folder_is_refused(data: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match=r"checkpoint: .*model has no config\.json$"):
        tokenize(spec(checkpoint=str(tmp_path / "model"), content="…"), *data, tmp_path / "tokens")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adapter_config.json", "an adapter of another model"),
        ("0_Transformer/config.json", "0_Transformer has;"),
    ],
)
def test_a_folder_that_is_no_model_s_says_so(data: tuple[Path, Path], tmp_path: Path, name: str, message: str) -> None:
    """Tokens are made before the weights are looked at."""
    (tmp_path / "model" / name).parent.mkdir(parents=True)
    (tmp_path / "model" / name).write_text("{}")
    with pytest.raises(UserError, match=rf"model has no config\.json.*{message}"):
        tokenize(spec(checkpoint=str(tmp_path / "model"), content="…"), *data, tmp_path / "tokens")


def test_a_folder_without_a_tokenizer_is_refused(data: tuple[Path, Path], tmp_path: Path) -> None:
    """transformers makes a tokenizer of five special tokens out of config.json alone, without a word."""
    BertConfig().save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match="no vocabulary besides its special tokens"):
        tokenize(spec(checkpoint=str(tmp_path / "model"), content="…"), *data, tmp_path / "tokens")


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("tokenizer.json", lambda text: text[: len(text) // 2], r"tokenizer\.json is damaged or cut off"),
        ("tokenizer.json", lambda text: "", r"tokenizer\.json is damaged or cut off"),
        ("tokenizer.json", lambda text: "[]", "must hold one JSON object"),
        ("tokenizer.json", lambda text: "{}", "cannot load the tokenizer .*added_tokens"),
        ("tokenizer.json", lambda text: text.replace('"type": "WordPiece"', '"type": "Word"'), "cannot load"),
        ("tokenizer_config.json", lambda text: '{"model_max_length": "x"}', "must be a number, not 'x'"),
        ("tokenizer_config.json", lambda text: "{", r"tokenizer_config\.json is damaged"),
        ("config.json", lambda text: "{", r"config\.json is damaged"),
        ("config.json", lambda text: "\ufeff" + text, r"config\.json is damaged .*Unexpected UTF-8 BOM"),
        ("config.json", lambda text: '{"x": ' + "[" * 100_000, "lists or objects in each other without end"),
        ("config.json", lambda text: '{"model_type": "evil", "auto_map": {"AutoConfig": "e.C"}}', "code of its own"),
        ("tokenizer_config.json", lambda text: '{"model_max_length": true}', "must be a number, not True"),
        ("tokenizer.json", lambda text: "version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (
            "tokenizer.json",
            lambda text: text.replace('"[UNK]": 1', '"[UNKNOWN]": 1').replace('"[UNK]"', '"[X]"'),
            "text",
        ),
    ],
)
def test_damaged_files_are_one_message(
    data: tuple[Path, Path], tmp_path: Path, name: str, damage: Callable[[str], str], message: str
) -> None:
    folder = checkpoint(tmp_path / "model", trained_tokenizer("bert", 300, TEXTS))
    (folder / name).write_text(damage((folder / name).read_text()))
    with pytest.raises(UserError, match=message):
        tokenize(spec(checkpoint=str(folder), content="…"), *data, tmp_path / "tokens")


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "mpnet", "longformer", "camembert"])
@pytest.mark.parametrize("pad", [0, 1])
def test_positions_that_begin_after_padding(tmp_path: Path, kind: str, pad: int) -> None:
    """What the check allows, the model takes; one token more it does not."""
    tokenizer = trained_tokenizer("bert", 300, TEXTS)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    sizes |= {"attention_window": 4} if kind == "longformer" else {}
    config = AutoConfig.for_model(kind, vocab_size=300, pad_token_id=pad, max_position_embeddings=24, **sizes)
    limit, reason = longest_input(tokenizer, config)
    assert limit == 24 - (1 if kind == "mpnet" else pad) - 1 and "cannot hold a token" in reason
    model = AutoModel.from_config(config).eval()
    model(input_ids=torch.full((1, limit), 5))
    if kind != "longformer":  # pads to its window
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, limit + 1), 5))


@pytest.mark.parametrize(
    ("positions", "tokens", "limit"), [(-1, 10**30, None), (0, -1, None), (512, -1, 512), (-1, 64, 64), (512, 128, 128)]
)
def test_minus_one_and_huge_numbers_are_no_limit(positions: int, tokens: int, limit: int | None) -> None:
    tokenizer = trained_tokenizer("bert", 300, TEXTS)
    tokenizer.model_max_length = tokens
    assert longest_input(tokenizer, BertConfig(max_position_embeddings=positions))[0] == limit


def test_byte_level_needs_room_for_the_bytes() -> None:
    with pytest.raises(UserError, match="vocabulary_size: `modernbert` needs at least 261"):
        trained_tokenizer("modernbert", 100, TEXTS)
