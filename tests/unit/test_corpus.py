"""Every kind of source becomes the same table, and a source that cannot be used says what to change."""

import json
from collections import Counter
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from batchscope.data.corpus import build_corpus
from batchscope.data.tables import Corpus, read_corpus
from batchscope.errors import UserError

REVIEWS = [('good, "really"\ngood', 1), ("bad", 0), ("fine <br />film", 1), ("dull é", 0)]


def local(source: Path, **keys: object) -> dict:
    return {"kind": "local", "source": str(source), "text": "text", "label": "label", **keys}


def build(spec: dict, folder: Path) -> Corpus:
    output = folder / "out" / "corpus.parquet"
    build_corpus(spec, output)
    return read_corpus(output)


def rows(corpus: Corpus) -> list[tuple]:
    return list(zip(corpus.texts, [corpus.classes[n] for n in corpus.label], corpus.origin.tolist(), strict=True))


def groups(corpus: Corpus) -> Counter:
    return Counter(zip(corpus.label.tolist(), corpus.origin.tolist(), strict=True))


def table(reviews: list[tuple], text: str = "text", label: str = "label") -> pa.Table:
    return pa.table({text: [t for t, _ in reviews], label: [value for _, value in reviews]})


def write(reviews: list[tuple], path: Path, **names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = table(reviews, **names)
    if path.suffix == ".parquet":
        pq.write_table(content, path)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(content, path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in content.to_pylist()))


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_every_format_gives_the_same_corpus(tmp_path: Path, suffix: str) -> None:
    write(REVIEWS[2:], tmp_path / f"test{suffix}")
    write(REVIEWS[:2], tmp_path / f"train-00000-of-00001{suffix}")
    corpus = build(local(tmp_path), tmp_path)
    assert rows(corpus) == [
        (text, str(label), "train" if number < 2 else "test") for number, (text, label) in enumerate(REVIEWS)
    ]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_single_file_with_other_column_names_and_string_labels(tmp_path: Path, suffix: str) -> None:
    reviews = [("a", "so-so"), ("b", "bad"), ("c", "good"), ("d", "bad")]
    write(reviews, tmp_path / f"mine{suffix}", text="body", label="stars")
    corpus = build(local(tmp_path / f"mine{suffix}") | {"text": "body", "label": "stars"}, tmp_path)
    assert corpus.classes == ["bad", "good", "so-so"]
    assert rows(corpus) == [(text, label, "train") for text, label in reviews]


def test_the_written_file_is_as_the_architecture_says(tmp_path: Path) -> None:
    write(REVIEWS, tmp_path / "a.parquet")
    build_corpus(local(tmp_path / "a.parquet"), tmp_path / "corpus.parquet")
    schema = pq.read_schema(tmp_path / "corpus.parquet")
    assert {field.name: field.type for field in schema} == {
        "example_id": pa.int64(), "text": pa.string(), "label": pa.int64(), "origin": pa.string(),
    }  # fmt: skip
    assert json.loads(schema.metadata[b"classes"]) == ["0", "1"]
    assert pq.read_table(tmp_path / "corpus.parquet")["example_id"].to_pylist() == [0, 1, 2, 3]


def test_integer_labels_become_consecutive_classes(tmp_path: Path) -> None:
    write([("a", 10), ("b", -2), ("c", 10), ("d", 4)], tmp_path / "a.parquet")
    corpus = build(local(tmp_path / "a.parquet"), tmp_path)
    assert corpus.classes == ["-2", "4", "10"]
    assert corpus.label.tolist() == [2, 0, 2, 1]


def test_the_imdb_layout(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("neg/10_1", "neg/2_3", "pos/0_9", "unsup/0_0"):
            file = tmp_path / split / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{split} {name}")
    corpus = build(local(tmp_path), tmp_path)
    assert corpus.classes == ["neg", "pos"]
    assert rows(corpus) == [
        (f"{split} {name}", name[:3], split)
        for split in ("train", "test")
        for name in ("neg/2_3", "neg/10_1", "pos/0_9")
    ]


def test_companions_and_unlabelled_files_beside_named_splits_are_left_out(tmp_path: Path) -> None:
    write(REVIEWS, tmp_path / "train.parquet")
    write([("x", -1)], tmp_path / "unsupervised.parquet")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "label_review.parquet")
    write([("hidden", -1)], tmp_path / "test.parquet")
    assert len(build(local(tmp_path), tmp_path)) == len(REVIEWS)


def test_without_named_splits_all_files_are_training_data(tmp_path: Path) -> None:
    write(REVIEWS[:2], tmp_path / "part2.csv")
    write(REVIEWS[2:], tmp_path / "part10.csv")
    assert build(local(tmp_path), tmp_path).texts == [text for text, _ in REVIEWS]


def test_class_names_of_a_dataset_file_survive(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["pos", "neg"])})
    made = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    made.to_parquet(tmp_path / "train.parquet")
    assert rows(build(local(tmp_path), tmp_path)) == [("a", "neg", "train"), ("b", "pos", "train")]


@pytest.mark.parametrize(
    ("reviews", "names", "message"),
    [
        (REVIEWS, {"text": "body"}, r"data\.text: .*no column 'text'; its columns are: body, label"),
        (REVIEWS, {"label": "y"}, r"data\.label: .*no column 'label'; its columns are: text, y"),
        ([("a", 0), (" ", 1), (None, 1)], {}, r"data\.text: 2 of 3 rows \(the first is row 2\)"),
        ([("a", 0), ("b", None)], {}, r"data\.label: 1 of 2 rows \(the first is row 2\)"),
        ([("a", 0.5), ("b", 1.0)], {}, r"data\.label: .* whole numbers or strings"),
        ([("a", 3), ("b", 3)], {}, "all 2 reviews are of class '3'; two classes"),
        ([(1, 0), (2, 1)], {}, r"data\.text: .*not text"),
    ],
)
def test_mistakes_name_the_key(tmp_path: Path, reviews: list, names: dict, message: str) -> None:
    write(reviews, tmp_path / "a.parquet", **names)
    with pytest.raises(UserError, match=message):
        build(local(tmp_path / "a.parquet"), tmp_path)


def test_a_damaged_file_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    write(REVIEWS, tmp_path / "train.parquet")
    whole = (tmp_path / "train.parquet").read_bytes()
    (tmp_path / "train.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"train\.parquet"):
        build(local(tmp_path), tmp_path)
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_says_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.parquet, \.csv, \.jsonl"):
        build(local(tmp_path), tmp_path)


def test_a_sample_has_the_exact_size_the_shares_and_the_order_of_the_corpus(tmp_path: Path) -> None:
    write([(f"a{n}", int(n % 5 == 0)) for n in range(200)], tmp_path / "train.csv")
    write([(f"b{n}", int(n % 2 == 0)) for n in range(100)], tmp_path / "test.csv")
    corpus = build(local(tmp_path), tmp_path)
    drawn = build(local(tmp_path, sample=77, sample_seed=3), tmp_path)
    assert len(drawn) == 77
    exact = {group: 77 * count / 300 for group, count in groups(corpus).items()}
    assert all(abs(count - exact[group]) < 1 for group, count in groups(drawn).items())
    order = {text: number for number, text in enumerate(corpus.texts)}
    places = [order[text] for text in drawn.texts]
    assert places == sorted(set(places))
    assert drawn.label.tolist() == corpus.label[places].tolist()
    assert drawn.texts == build(local(tmp_path, sample=77, sample_seed=3), tmp_path).texts
    assert drawn.texts != build(local(tmp_path, sample=77, sample_seed=4), tmp_path).texts


@pytest.mark.parametrize(("size", "message"), [(5, "5 is more than the 4 reviews"), (1, "no review of class")])
def test_an_impossible_sample_is_refused(tmp_path: Path, size: int, message: str) -> None:
    write(REVIEWS, tmp_path / "a.csv")
    with pytest.raises(UserError, match=message):
        build(local(tmp_path / "a.csv", sample=size, sample_seed=0), tmp_path)
