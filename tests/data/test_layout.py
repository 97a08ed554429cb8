"""Every file of a folder is a part of the corpus or named as left out; a name that can mean two things is refused."""

import os
from pathlib import Path

import pytest

from batchscope.data.layout import Layout, folder_layout, origins
from batchscope.errors import UserError


def layout(root: Path, *names: str) -> Layout:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.fsencode(name))
    return folder_layout(root)


def tables(found: Layout) -> dict[str, str]:
    return {file.name: file.origin for file in found.tables}


def left_out(found: Layout) -> dict[str, str]:
    return {entry["name"]: entry["reason"] for entry in found.left_out}


@pytest.mark.parametrize(
    ("train", "test", "validation"),
    [
        ("train.csv", "test.csv", "dev.csv"),
        ("training.csv", "testing.csv", "valid.csv"),
        ("TRAIN.CSV", "Test.Csv", "Validation.csv"),
        ("trainData.tsv", "testData.tsv", "valData.tsv"),
        ("reviews_train.jsonl", "reviews_test.jsonl", "reviews_devSet.jsonl"),
        ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet", "val2.parquet"),
        ("train.csv.gz", "test.csv.bz2", "eval.csv.xz"),
        ("train/0000.parquet", "test/0000.parquet", "validation/0000.parquet"),
        ("train.csv/part-0.csv", "test.csv/part-0.csv", "dev.csv/part-0.csv"),
        ("split=train/0.parquet", "split=test/0.parquet", "split=validation/0.parquet"),
        ("plain_text/train/0.json", "plain_text/Testing/0.json", "plain_text/eval/0.json"),
        ("v1.2_train.csv", "v1.2_test.csv", "v1.2_development.csv"),
    ],
)
def test_split_names_of_many_kinds(tmp_path: Path, train: str, test: str, validation: str) -> None:
    found = layout(tmp_path, train, test, validation)
    assert tables(found) == {train: "train", test: "test", validation: "validation"}
    assert found.left_out == []


def test_words_that_only_contain_a_split_say_none() -> None:
    assert set(origins(["latest", "contest", "trainer", "devices", "pretrained", "values"]).values()) == {None}


def test_eval_is_the_test_set_where_there_is_no_other() -> None:
    assert origins(["train", "eval"]) == {"train": "train", "eval": "test"}
    assert origins(["train", "dev", "eval"])["eval"] == "test"
    assert origins(["train", "test", "evaluation"])["evaluation"] == "validation"


def test_hidden_files_and_folders_are_no_reviews_and_are_named(tmp_path: Path) -> None:
    hidden = [
        ".ipynb_checkpoints/train.csv",
        "._train.csv",
        ".DS_Store",
        "__MACOSX/train.csv",
        ".git/a/b",
        "~$test.csv",
    ]
    found = layout(tmp_path, "train.csv", "test.csv", *hidden)
    assert list(tables(found)) == ["test.csv", "train.csv"]
    assert left_out(found).keys() == {
        ".ipynb_checkpoints",
        ".git",
        "__MACOSX",
        "._train.csv",
        ".DS_Store",
        "~$test.csv",
    }
    assert set(left_out(found).values()) == {"it is hidden, or a copy that a program keeps"}


def test_many_files_left_out_for_one_reason_are_counted(tmp_path: Path) -> None:
    found = layout(tmp_path, "train.csv", *(f"notes/{number}.md" for number in range(12)))
    assert list(left_out(found)) == ["notes/0.md and 11 more"]


def test_hidden_folders_above_the_source_do_not_count(tmp_path: Path) -> None:
    assert tables(layout(tmp_path / ".cache/data", "a.csv")) == {"a.csv": "train"}


def test_every_file_is_read_or_named(tmp_path: Path) -> None:
    names = ["train.csv", "test.csv", "unsupervised.csv", "README.md", "notes/products.csv", "notes/map.png", "LICENSE"]
    found = layout(tmp_path, *names)
    assert {*tables(found), *left_out(found)} == {*names}


def test_what_the_hub_s_library_writes_beside_the_data_is_no_data(tmp_path: Path) -> None:
    found = layout(tmp_path, "data.csv", "dataset_infos.json", "state.json")
    assert tables(found) == {"data.csv": "train"}
    assert left_out(found).keys() == {"dataset_infos.json", "state.json"}


def test_without_split_names_all_tables_are_training_data(tmp_path: Path) -> None:
    assert tables(layout(tmp_path, "b10.csv", "b9.csv")) == {"b9.csv": "train", "b10.csv": "train"}


def test_a_linked_folder_is_read_and_a_loop_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/0.csv").write_text("")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/test").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/self").symlink_to(tmp_path / "data")
    assert tables(layout(tmp_path / "data", "train.csv")) == {"test/0.csv": "test", "train.csv": "train"}


def test_a_walk_through_links_to_each_other_ends(tmp_path: Path) -> None:
    """Each link can be followed into the other's folder again, in one of many orders."""
    layout(tmp_path, "x/train.csv", "y/other.csv")
    for name, target in (("x/a", "y"), ("x/b", "y"), ("y/a", "x"), ("y/b", "x")):
        (tmp_path / name).symlink_to(tmp_path / target)
    walked = folder_layout(tmp_path)
    assert len(walked.tables) == 3 and len(walked.left_out) == 3


def test_a_name_that_is_not_text_is_shown_in_escapes(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.md")).touch()
    found = layout(tmp_path, "train.csv", "two\nlines.md")
    assert left_out(found).keys() == {"caf\\xe9.md", "two\\x0alines.md"}


def make(path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "lost link":
        path.symlink_to("nowhere")
    else:
        path.touch()


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (b"test.csv", "pipe", r"test\.csv in .* is a pipe or a device, not a file; remove it"),
        (b"test.csv", "lost link", r"test\.csv in .* is a link to a file that is not there; remove it"),
        (b"test\xff.csv", "file", r"the name of test\\xff\.csv in .* is not UTF-8, or has a control character; rename"),
        (b"test\n.csv", "file", r"the name of test\\x0a\.csv in"),
    ],
)
def test_a_table_that_cannot_be_read_or_named_is_refused(tmp_path: Path, name: bytes, kind: str, message: str) -> None:
    make(tmp_path / os.fsdecode(name), kind)
    with pytest.raises(UserError, match=message):
        layout(tmp_path, "train.csv")


def test_a_class_whose_name_is_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the name of train/caf\\xe9/1\.txt"):
        layout(tmp_path, "train/pos/1.txt", os.fsdecode(b"train/caf\xe9/1.txt"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train.csv", "train.csv.gz"], "same reviews twice"),
        (["train.csv", "train.parquet"], "same reviews twice"),
        (["data/train.csv", "data/train/0000.parquet"], r"data/train\.csv and data/train/0000\.parquet"),
        (["train.csv", "test.csv.zip"], r"test\.csv\.zip .* is named like a split"),
        (["train.csv", "test.xlsx"], r"test\.xlsx .* Convert it"),
        (["train.csv", "test.parquet.gz"], r"test\.parquet\.gz"),
        (["train.csv", "test.parquet.crdownload"], r"test\.parquet\.crdownload .* is named like a split"),
        (["train.csv", "test/0000.xlsx"], r"test/0000\.xlsx .* is named like a split, but is not read .* Convert it"),
        (["all.csv", "hub/train/data-00000-of-00001.arrow"], r"hub/train/data-00000-of-00001\.arrow .* Convert it"),
        (["train_test.csv"], "says test and train; rename"),
        (["train.csv", "dev.csv", "test.csv", "eval.csv"], "'eval' can be a validation or a test set"),
        (["reviews.csv", "test.csv"], r"no file whose name says `train`.*reviews\.csv"),
        (["train/pos/1.txt", "train/neg/1.txt", "test.csv"], r"test\.csv .* one text file per review"),
        (["README.md"], r"no reviews.*README\.md"),
        ([], "no reviews"),
    ],
)
def test_what_can_mean_two_things_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        layout(tmp_path, *names)


@pytest.mark.parametrize("above", ["", "aclImdb/"])
def test_folders_of_texts(tmp_path: Path, above: str) -> None:
    extra = ["README", "train/urls_pos.txt", "train/unsup/0.txt", "train/unsup/1.txt", "train/pos/._0.txt", "words.csv"]
    texts = ["train/neg/2_1.txt", "train/neg/10_1.txt", "train/pos/0_9.TXT", "Testing/pos/0.txt"]
    found = layout(tmp_path, *(above + name for name in [*texts, *extra]))
    assert [(folder.name, folder.origin) for folder in found.texts] == [
        (f"{above}Testing", "test"),
        (f"{above}train", "train"),
    ]
    assert [(label, file.name) for label, file in found.texts[1].files] == [
        ("neg", "2_1.txt"), ("neg", "10_1.txt"), ("pos", "0_9.TXT"),
    ]  # fmt: skip
    assert left_out(found).keys() == {above + name for name in extra}
