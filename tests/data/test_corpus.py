"""Every kind of source becomes the same table, and a source that cannot be used says what to change."""

import json
import logging
from collections import Counter
from decimal import Decimal
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from batchscope.data.corpus import build_corpus
from batchscope.data.spec import CorpusSpec
from batchscope.data.tables import Corpus, read_corpus
from batchscope.errors import UserError

REVIEWS = [('good, "really"\ngood', 1), ("bad", 0), ("fine <br />film", 1), ("dull é", 0)]


def local(source: Path, **keys: object) -> CorpusSpec:
    return CorpusSpec.read({"kind": "local", "source": str(source), "text": "text", "label": "label"} | keys)


def build(spec: CorpusSpec, folder: Path) -> Corpus:
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
    corpus = build(local(tmp_path / f"mine{suffix}", text="body", label="stars"), tmp_path)
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


def test_what_was_read_and_left_out_is_recorded_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(REVIEWS, tmp_path / "data/test/0.csv")
    write([("one", 1), ("two", 0)], tmp_path / "data/train.jsonl")
    write([("x", -1)], tmp_path / "data/train-unlabelled.parquet")
    write([("x", 1)], tmp_path / "data/unsupervised.parquet")
    write([("x", 1)], tmp_path / "data/.ipynb_checkpoints/train.csv")
    (tmp_path / "data/validation.csv").write_text("text,label\n")
    with caplog.at_level(logging.INFO):
        corpus = build(local(tmp_path / "data", sample=4, sample_seed=1), tmp_path)
    assert corpus.source["read"] == [
        {"name": "train.jsonl", "origin": "train", "reviews": 2},
        {"name": "test/0.csv", "origin": "test", "reviews": 4},
    ]
    assert {entry["name"]: entry["reason"] for entry in corpus.source["left_out"]} == {
        ".ipynb_checkpoints": "it is hidden, or a copy that a program keeps",
        "unsupervised.parquet": "its name says no split, while the names of other files do",
        "train-unlabelled.parquet": "its reviews have no labels: -1 in every row",
        "validation.csv": "it has no rows",
    }
    for entry in corpus.source["left_out"]:
        assert f"left out {entry['name']}: {entry['reason']}" in caplog.text
    assert "read 4 reviews of test/0.csv as test" in caplog.text


def test_the_place_of_the_source_is_not_in_the_corpus(tmp_path: Path) -> None:
    for place in ("here", "there"):
        write(REVIEWS, tmp_path / place / "a.csv")
        build_corpus(local(tmp_path / place), tmp_path / place / "corpus.parquet")
    assert (tmp_path / "here/corpus.parquet").read_bytes() == (tmp_path / "there/corpus.parquet").read_bytes()


def test_the_same_file_twice_is_refused(tmp_path: Path) -> None:
    write(REVIEWS, tmp_path / "train.csv")
    write(REVIEWS, tmp_path / "train (1).csv")
    with pytest.raises(UserError, match="are the same file; remove one"):
        build(local(tmp_path), tmp_path)


def test_facts_beside_the_reviews_are_left_out_and_a_split_of_that_kind_is_refused(tmp_path: Path) -> None:
    write(REVIEWS, tmp_path / "data/reviews.csv")
    (tmp_path / "data/dataset-metadata.json").write_text('{\n  "title": "Reviews"\n}\n')
    corpus = build(local(tmp_path / "data"), tmp_path)
    assert [entry["name"] for entry in corpus.source["left_out"]] == ["dataset-metadata.json"]
    (tmp_path / "data/dataset-metadata.json").rename(tmp_path / "data/train.json")
    with pytest.raises(UserError, match=r"train\.json holds one JSON object"):
        build(local(tmp_path / "data"), tmp_path)


@pytest.mark.parametrize("missing", ["", " ", None, "null", "NaN", "nan", "NA", "N/A", "<NA>", "None"])
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_missing_label_among_strings_is_no_class(tmp_path: Path, suffix: str, missing: str | None) -> None:
    write([("a", "good"), ("b", "bad"), ("c", missing), ("d", missing)], tmp_path / f"a{suffix}")
    with pytest.raises(UserError, match=r"2 of 4 data rows \(3, 4\) of .* have no label"):
        build(local(tmp_path), tmp_path)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_label_among_numbers_is_no_number(tmp_path: Path, suffix: str, missing: float | None) -> None:
    reviews = [("a", 1.0), ("b", missing), ("c", 0.0)]
    labels = pa.array([label for _, label in reviews], pa.float64())
    content = pa.table({"text": [text for text, _ in reviews], "label": labels})
    if suffix == ".parquet":
        pq.write_table(content, tmp_path / "a.parquet")
    elif suffix == ".csv":
        pyarrow.csv.write_csv(content, tmp_path / "a.csv")
    else:
        (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in content.to_pylist()))
    with pytest.raises(UserError, match=r"data row 2 of .* has no label"):
        build(local(tmp_path), tmp_path)


def test_none_and_white_space_around_a_label(tmp_path: Path) -> None:
    write([("a", " none"), ("b", "none "), ("c", "joy")], tmp_path / "a.csv")
    corpus = build(local(tmp_path), tmp_path)
    assert corpus.classes == ["joy", "none"]


def test_classes_that_differ_in_capitals_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write([("a", "good"), ("b", "Good"), ("c", "bad")], tmp_path / "a.csv")
    assert len(build(local(tmp_path), tmp_path).classes) == 3
    assert "'Good' and 'good' count as two classes" in caplog.text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("good", "good\u200b"),
        ("very good", "very  good"),
        ("very good", "very\u00a0good"),
        ("good", "\uff47ood"),
        ("stra\u00dfe", "STRASSE"),
    ],
)
def test_classes_that_look_alike_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, one: str, other: str
) -> None:
    write([("a", one), ("b", other), ("c", "bad")], tmp_path / "a.csv")
    assert len(build(local(tmp_path), tmp_path).classes) == 3
    assert "count as two classes; they differ in white space or characters that look alike" in caplog.text
    assert ascii(one) in caplog.text and ascii(other) in caplog.text


def test_one_class_only_names_what_was_left_out(tmp_path: Path) -> None:
    write([("a", -1), ("b", -1)], tmp_path / "neg.csv")
    write([("c", 1), ("d", 1)], tmp_path / "pos.csv")
    with pytest.raises(UserError, match=r"all 2 reviews are of class '1'.*Left out: neg\.csv"):
        build(local(tmp_path), tmp_path)


def test_text_files_without_byte_order_mark_and_in_another_encoding(tmp_path: Path) -> None:
    for label, content in (("neg", b"\xef\xbb\xbfbad"), ("pos", b"good")):
        (tmp_path / "train" / label).mkdir(parents=True)
        (tmp_path / "train" / label / "1.txt").write_bytes(content)
    assert build(local(tmp_path), tmp_path).texts == ["bad", "good"]
    (tmp_path / "train/pos/2.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(UserError, match=r"2\.txt is not encoded in UTF-8"):
        build(local(tmp_path), tmp_path)


def test_without_named_splits_all_files_are_training_data(tmp_path: Path) -> None:
    write(REVIEWS[:2], tmp_path / "part2.csv")
    write(REVIEWS[2:], tmp_path / "part10.csv")
    assert build(local(tmp_path), tmp_path).texts == [text for text, _ in REVIEWS]


def test_class_names_of_a_dataset_file_survive(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["pos", "neg"])})
    made = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    made.to_parquet(tmp_path / "train.parquet")
    assert rows(build(local(tmp_path), tmp_path)) == [("a", "neg", "train"), ("b", "pos", "train")]


def with_class_names(path: Path, names: object) -> Path:
    """A parquet file whose metadata state names, in the form in which `datasets` writes them."""
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    table = pa.table({"text": ["a", "b"], "label": [1, 0]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


@pytest.mark.parametrize("names", [[0, 1], [None, "a"], ["a", "a"], ["a", " "], ["a", "\ud83d"], [], "ab"])
def test_class_names_that_name_no_class_are_refused(tmp_path: Path, names: object) -> None:
    source = with_class_names(tmp_path / "a.parquet", names)
    with pytest.raises(UserError, match=r"data\.label: .*a\.parquet states .* as the names of the classes"):
        build(local(source), tmp_path)


@pytest.mark.parametrize("named", ["train", "test"])
def test_class_names_that_one_file_alone_states_are_refused(tmp_path: Path, named: str) -> None:
    for split in ("train", "test"):
        write([(f"{split} a", 1), (f"{split} b", 0)], tmp_path / f"{split}.parquet")
    with_class_names(tmp_path / f"{named}.parquet", ["neg", "pos"])
    with pytest.raises(UserError, match=rf"do not state the same class names .*{named}\.parquet: neg, pos"):
        build(local(tmp_path), tmp_path)


def test_decimals_without_a_fraction_are_whole_numbers(tmp_path: Path) -> None:
    """Databases export their integers as decimals."""
    write([("a", Decimal(1)), ("b", Decimal(10))], tmp_path / "a.parquet")
    assert build(local(tmp_path), tmp_path).classes == ["1", "10"]


@pytest.mark.parametrize(
    ("reviews", "names", "message"),
    [
        (REVIEWS, {"text": "body"}, r"data\.text: .*no column 'text'; its columns are: 'body', 'label'"),
        (REVIEWS, {"label": "y"}, r"data\.label: .*no column 'label'; its columns are: 'text', 'y'"),
        ([("a", 0), (" ", 1), (None, 1)], {}, r"data\.text: 2 of 3 data rows \(2, 3\) of .* have no text"),
        ([("a", 0), ("b", None)], {}, r"data\.label: data row 2 of .*a\.parquet has no label"),
        ([("a", 0), (" ", 1), ("c", None)], {}, r"data row 2 of .* no text.*\n.*data row 3 of .* no label"),
        ([("a", 0)] + [("", 0)] * 20, {}, r"20 of 21 data rows \(2, .*, 13 and 8 more\)"),
        ([("a", 1.0), ("b", 0.5)], {}, r"data\.label: data row 2 of .* has 0\.5 .* whole numbers or strings"),
        ([("a", Decimal("1.0")), ("b", Decimal("0.5"))], {}, r"data\.label: data row 2 of .* has 0\.5"),
        ([("a", 3), ("b", 3)], {}, "all 2 reviews are of class '3'; two classes"),
        ([(1, 0), (2, 1)], {}, r"data\.text: .*not text"),
        ([(f"text {n}", n) for n in range(20)], {}, "each of the 20 reviews has a label of its own, from '0' to '19'"),
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
    with pytest.raises(UserError, match=r"no reviews.*\.parquet, \.csv, \.tsv, \.jsonl or \.json"):
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
