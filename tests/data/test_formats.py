"""Files as people write them: each is read as it was meant, or refused in one message that names file and row."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscope.data.columns import Columns
from batchscope.data.decoding import read_text
from batchscope.data.formats import read_table
from batchscope.data.streams import text_parts
from batchscope.errors import UserError

COLUMNS = Columns("text", "label")


def read(path: Path, content: str | bytes) -> list[tuple[str, object]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    table = read_table(path, COLUMNS).table
    return list(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))


def zstandard(content: bytes) -> bytes:
    compressed: bytes = pa.Codec("zstd").compress(content, asbytes=True)
    return compressed


# ------------------------------------------------------------------------------------------------ sound


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize(
    ("format", "content"),
    [
        (".csv", 'text,label\n"a, b",1\nc,0\n'),
        (".tsv", "text\tlabel\na, b\t1\nc\t0\n"),
        (".jsonl", '{"text": "a, b", "label": 1}\n{"text": "c", "label": 0}\n'),
        (".json", '[{"text": "a, b", "label": 1}, {"text": "c", "label": 0}]'),
    ],
)
def test_compressed_files_are_those_they_hold(tmp_path: Path, format: str, content: str, ending: str) -> None:
    compress = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard}[ending]
    assert read(tmp_path / f"a{format}", content) == [("a, b", 1), ("c", 0)]
    assert read(tmp_path / f"A{format}{ending}".upper(), compress(content.encode())) == [("a, b", 1), ("c", 0)]


@pytest.mark.parametrize("ending", [".bz2", ".xz"])
def test_no_compressed_stream_of_a_file_is_dropped(tmp_path: Path, ending: str) -> None:
    """A file may have many streams, as pbzip2 writes it. Python's readers end at the first damaged one, silently."""
    compress = {".bz2": bz2.compress, ".xz": lzma.compress}[ending]
    first, second = compress(b"text,label\n" + b"a,1\n" * 50_000), compress(b"b,0\n" * 50_000)
    path = tmp_path / f"a.csv{ending}"
    assert read(path, first + second + b"\0" * 4) == [("a", 1)] * 50_000 + [("b", 0)] * 50_000
    assert [len(part) for part in text_parts(path, "text", 100_000)] == [100_000]
    damaged = bytes([*second[:20], second[20] ^ 1, *second[21:]])
    for rest in (b"more", damaged, second[1:], second[:-9]):
        path.write_bytes(first + rest)
        for reader in (lambda: read_table(path, COLUMNS), lambda: list(text_parts(path, "text", 10))):
            with pytest.raises(UserError, match=rf"a\.csv\{ending}, it may be damaged or cut off"):
                reader()


def test_embedded_line_breaks_quotes_and_a_byte_order_mark(tmp_path: Path) -> None:
    content = '\ufefftext,label\r\n"one\r\ntwo ""three""",1\r\n\r\nfour,0\r\n'
    assert read(tmp_path / "a.csv", content) == [('one\r\ntwo "three"', 1), ("four", 0)]


def test_line_ends_of_old_macs(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", "label,text\r1,one\r0,two\r") == [("one", 1), ("two", 0)]


def test_line_separators_inside_a_text_end_no_record(tmp_path: Path) -> None:
    texts = ["a\u2028b", "c\x85d", "e\x0bf"]
    lines = "".join(json.dumps({"text": text, "label": 1}, ensure_ascii=False) + "\r\n" for text in texts)
    assert [text for text, _ in read(tmp_path / "a.jsonl", "\ufeff" + lines)] == texts


@pytest.mark.parametrize("label", ["2020-01-01", "2020-01-01T10:00:00Z", "10:30", "1 day", "٣", "1_000", "0x1", "007"])
def test_what_looks_like_a_date_or_an_odd_number_stays_a_string(tmp_path: Path, label: str) -> None:
    assert read(tmp_path / "a.csv", f"text,label\n2021-02-03,{label}\nb,x\n") == [("2021-02-03", label), ("b", "x")]
    assert read(tmp_path / "b.csv", f"text,label\n2021-02-03,{label}\n") == [("2021-02-03", label)]
    line = json.dumps({"text": "2021-02-03", "label": label})
    assert read(tmp_path / "a.jsonl", line) == [("2021-02-03", label)]


def test_numbers_in_csv_are_numbers_if_all_are(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", "text,label\na, 1\nb,0\nc,-1\n") == [("a", 1), ("b", 0), ("c", -1)]
    assert read(tmp_path / "b.csv", "text,label\na,1.0\nb,0.0\n") == [("a", 1.0), ("b", 0.0)]
    assert read(tmp_path / "c.csv", "text,label\na,1\nb,x\n") == [("a", "1"), ("b", "x")]


@pytest.mark.parametrize("labels", [["01", "1"], ["9007199254740993", "1.0"], ["10000000000000000001", "1"]])
def test_labels_that_as_numbers_would_be_one_or_others_are_strings(tmp_path: Path, labels: list[str]) -> None:
    content = "text,label\n" + "".join(f"a,{label}\n" for label in labels)
    assert [label for _, label in read(tmp_path / "a.csv", content)] == labels


def test_quotation_marks_of_a_tsv_file_that_do_not_pair_are_text(tmp_path: Path) -> None:
    rows = [('"Superb', 1), ('so-called" film', 0), ('a "b"', 1), ('"c" d', 0)]
    content = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)
    assert read(tmp_path / "a.tsv", content) == rows
    assert read(tmp_path / "b.tsv", 'text\tlabel\n"one\ntwo"\t1\n') == [("one\ntwo", 1)]


def test_other_columns_do_not_matter(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", "x,x,label,text\n1,2020-01-01,5,a\n") == [("a", 5)]
    assert read(tmp_path / "a.jsonl", '{"x": [1], "text": "a", "label": 5}\n{"text": "b", "label": 6}') == [
        ("a", 5),
        ("b", 6),
    ]
    assert read(tmp_path / "b.jsonl", '{"x": 1, "x": {"label": 1, "label": 2}, "text": "a", "label": 5}') == [("a", 5)]


def test_a_very_long_text(tmp_path: Path) -> None:
    assert len(read(tmp_path / "a.csv", "text,label\n" + "x" * 1_000_000 + ",1\n")[0][0]) == 1_000_000


# ---------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\na,1\nb, c,0\n", r"data row 2 of .*a\.csv \(line 3\) has 3 values, .* 2 columns"),
        ("a.csv", "text,label\na,1\nb\n", r"data row 2 .* has 1 value,"),
        ("a.csv", 'text,label\na,1\n"b" c,0\n', r"a\.csv cannot be parsed at data row 2 \(line 3\)"),
        ("a.csv", 'text,label\n"b,0\n', r"a\.csv cannot be parsed at data row 1"),
        ("a.csv", "text;label\na, b;1\n", "separated by a semicolon, not by a comma. Save it with commas"),
        ("a.csv", '"text";"label"\n"a, b";1\n', "separated by a semicolon"),
        ("a.csv", "text\tlabel\na\t1\n", r"separated by a tab, not by a comma. Rename it to \.tsv"),
        ("a.tsv", "text,label\na,1\n", "separated by a comma, not by a tab"),
        ("a.csv", "text,label,label\na,1,1\n", "data.label: .* has 2 columns 'label': a duplicate"),
        ("a.csv", "Text, label\na,1\n", "data.text: .* no column 'text'; .* Did you mean 'Text'"),
        ("a.csv", "text,Label \na,1\n", "Did you mean 'Label '"),
        ("a.csv", "text,label\na,1\ntext,label\nb,0\n", r"data row 2 of .* \(line 3\) is the header once more"),
        ("a.csv", b"%PDF-1.7\n%\xe2", "is a PDF, not a text file"),
        ("a.csv", "text,label\na,1\n".encode("utf-32"), "encoded in UTF-32.*iconv -f UTF-32"),
        ("a.csv", "text\na\n", "no column 'label'.* without labels must not be in"),
        ("a.csv", "", "no column 'text'; its columns are: none, it is empty"),
        ("a.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        ("a.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        ("a.parquet", "PAR1", r"cannot read .*a\.parquet, it may be damaged"),
        ("a.csv.gz", "text,label\n", r"cannot read .*a\.csv\.gz, it may be damaged"),
        ("a.csv.gz", gzip.compress(b"text,label\n" * 99, mtime=0)[:-12], "damaged or cut off"),
        ("a.csv.zst", zstandard(bytes(range(256)) * 99)[:-9], "damaged or cut off"),
        ("a.csv", gzip.compress(b"text,label\n", mtime=0), r"is compressed with gzip \(\.gz\), not a text file"),
        ("a.csv", b"PK\x03\x04\x80\x81", "ZIP archive or an Excel workbook"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label"\n', r"line 2 of .*a\.jsonl is not valid JSON"),
        ("a.json", '[{"text": "a", "label": 1}', r"a\.json is not valid JSON"),
        ("a.json", '{\n"data": []\n}', "one object per line, or one array"),
        ("a.jsonl", '{"text": "a", "label": 1, "text": "b"}', "data row 1 .* has 'text' twice; keep one"),
        ("a.json", '[{"text": "a", "label": 1, "label": 2}]', "data row 1 .* has 'label' twice"),
        ("a.json", "[" * 100_000, "not valid JSON: lists or objects in each other without end"),
        ("a.jsonl", '{"text": "a", "label": 1, "x": ' + "[" * 100_000, "line 1 .* without end"),
        ("a.jsonl", '["a", 1]', "data row 1 .* is a text, not an object"),
        ("a.jsonl", '{"text": 5, "label": 1}', "data.text: data row 1 .* has a number as 'text'"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "a", "label": "x"}', "data row 2 has 'x'"),
        ("a.jsonl", '{"text": "a", "label": [1]}', "whole numbers alone or strings alone; data row 1"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "a", "label": true}', "data row 2 has True"),
        ("a.jsonl", '{"text": "a", "label": 1' + "0" * 30 + "}", "whole numbers .*; data row 1 has 1000"),
        ("a.jsonl", '{"text": "a", "label": "b"}\n{"text": "a", "label": "c\\ud83d"}', r"; data row 2 has 'c\\ud83d'"),
        ("a.jsonl", '{"text": "a\\ud83d", "label": 1}', "data.text: data row 1 .* half a character"),
    ],
)
def test_a_mistake_is_one_message(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path / name, content)


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("latin-1", r"a\.csv is not encoded in UTF-8: line 3 has the byte 0xE9. It looks like Latin-1 .*iconv"),
        ("utf-16", "encoded in UTF-16, not in UTF-8.*iconv -f UTF-16"),
        ("utf-16-le", "encoded in UTF-16"),
        ("utf-16-be", "encoded in UTF-16"),
    ],
)
def test_other_encodings_are_named(tmp_path: Path, encoding: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a.csv", "text,label\nplain,1\ncafé,0\n".encode(encoding))


def test_an_encoding_of_another_script_is_not_called_latin(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("хороший фильм, очень тёплый".encode("cp1251"))
    with pytest.raises(UserError, match="Find out which encoding") as caught:
        read_text(tmp_path / "a.txt")
    assert "Latin" not in str(caught.value)


def test_a_column_twice_in_parquet(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array([1]), pa.array([2])], names=["text", "label", "label"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="2 columns 'label'"):
        read_table(tmp_path / "a.parquet", COLUMNS)
