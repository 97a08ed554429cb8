"""Texts read a part at a time are those that the whole-file readers give, in every format."""

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscope.data.columns import Columns
from batchscope.data.formats import read_table
from batchscope.data.streams import text_parts
from batchscope.errors import UserError

TEXTS = ["plain", 'with "quotes", and a comma', "two\nlines", "  ", "", "ünïcode ✓", "[looks] like an array"]


def csv_of(separator=","):
    quoted = ['"' + text.replace('"', '""') + '"' for text in TEXTS]
    rows = [f"{number}{separator}{text}{separator}x" for number, text in enumerate(quoted)]
    return "\r\n".join([separator.join(["id", "text", "label"]), *rows]).encode() + b"\r\n\r\n"


def json_lines():
    return "".join(json.dumps({"id": 1, "text": text, "label": "x"}) + "\n\n" for text in TEXTS).encode()


FILES = {
    "a.csv": csv_of(),
    "bom.csv": b"\xef\xbb\xbf" + csv_of(),
    "a.csv.gz": gzip.compress(csv_of()),
    "a.tsv.xz": lzma.compress(csv_of("\t")),
    "a.jsonl": json_lines(),
    "a.jsonl.bz2": bz2.compress(json_lines()),
    "lines.json": json_lines(),
    "array.json": json.dumps([{"text": text, "label": "x"} for text in TEXTS], indent=1).encode(),
}


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize("name", [*FILES, "a.parquet", "a.jsonl.zst"])
def test_every_format_streams_what_its_reader_reads(tmp_path, name, rows):
    path = tmp_path / name
    if name == "a.parquet":
        pq.write_table(pa.table({"text": TEXTS, "label": ["x"] * len(TEXTS)}), path, row_group_size=2)
    elif name == "a.jsonl.zst":
        path.write_bytes(pa.compress(json_lines(), codec="zstd", asbytes=True))
    else:
        path.write_bytes(FILES[name])
    parts = list(text_parts(path, "text", rows))
    assert all(0 < len(part) <= rows for part in parts)
    streamed = [text for part in parts for text in part]
    whole = read_table(path, Columns("text", "label")).table["text"].to_pylist()
    assert streamed == [text if text.strip() else None for text in whole]


def test_a_tsv_with_lone_quotation_marks_is_read_without_quoting(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\n"so he said\tx\nand "that" too\tx\n')
    assert list(text_parts(path, "text", 10)) == [['"so he said', 'and "that" too']]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id,words\n1,x\n", r"has no column 'text'; its columns are: 'id', 'words'"),
        ("a.csv", "text,text\n1,x\n", "2 columns 'text'"),
        ("a.csv", "text,id\none\n", r"data row 1 .* has 1 values, the header has 2"),
        ("a.csv", 'text,id\nx,1\n"a"b,2\n', "cannot be parsed at data row 2"),
        ("a.csv", "text,id\nx,1\ntext,id\n", r"data row 2 .* \(line 3\) is the header once more"),
        ("a.jsonl", '{"text": "x", "text": "y"}\n', "data row 1 .* has 'text' twice"),
        ("a.jsonl", "[" * 100_000, "not valid JSON: lists or objects in each other without end"),
        ("a.jsonl", '{"text": "x"}\n{"text": 3}\n', "data row 2 .* has a int as 'text', not text"),
        ("a.jsonl", '{"text": "x"}\n{"text"\n', "row 2 .* is not valid JSON"),
        ("a.jsonl", '{"text": "x"}\n{"text": "a\\ud83d"}\n', "data row 2 .* has half a character"),
        ("a.csv.gz", "text\nx\n", "may be damaged"),
        ("a.txt", "x", "is not a .parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        list(text_parts(tmp_path / name, "text", 10))


def test_a_file_that_is_not_there_and_latin_1_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        list(text_parts(tmp_path / "a.csv", "text", 10))
    (tmp_path / "a.csv").write_bytes(b"text\ncaf\xe9\n")
    with pytest.raises(UserError, match="not encoded in UTF-8"):
        list(text_parts(tmp_path / "a.csv", "text", 10))
