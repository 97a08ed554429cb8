"""The bytes of a file as text: decompressed, decoded from UTF-8, and where that fails, what is wrong in words."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa

from batchscope.errors import UserError
from batchscope.files import parse_json

POINTER = b"version https://git-lfs"
MAGIC = {
    b"\x1f\x8b": "compressed with gzip (.gz)",
    b"BZh": "compressed with bzip2 (.bz2)",
    b"\xfd7zXZ": "compressed with xz (.xz)",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard (.zst)",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"PAR1": "a Parquet file (.parquet)",
    b"ARROW1": "an Arrow file",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "a PDF",
}
PART = 1 << 16
UTF_32 = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def read_bytes(path: Path) -> bytes:
    """The content of a file, decompressed by its ending. Raises UserError naming the file."""
    try:
        content = path.read_bytes()
        if content.startswith(POINTER):
            raise UserError(f"data.source: {path} is a Git LFS pointer, not the data; run `git lfs pull`")
        ending = path.suffix.lower()
        if ending == ".gz":
            return gzip.decompress(content)
        if ending in (".bz2", ".xz"):
            return b"".join(decompressed(io.BytesIO(content), ending))
        if ending == ".zst":
            with pa.input_stream(pa.BufferReader(content), compression="zstd") as stream:
                whole: bytes = stream.read()
                return whole
        return content
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        what = "damaged or cut off" if path.is_file() else "not there"
        raise UserError(f"data.source: cannot read {path}, it may be {what}: {error}") from None


def decompressed(file: IO[bytes], ending: str) -> Iterator[bytes]:
    """The content of a ``.bz2`` or ``.xz`` file, of all its compressed streams, at most ``PART`` bytes at a time.

    The readers of ``bz2`` and ``lzma`` take a damaged stream for the end of the file, unless it is the first, and drop
    what follows; pbzip2 writes a stream for every 900 kB. Raises OSError, EOFError or lzma.LZMAError for damage.
    """
    compressed = file.read(PART)
    while compressed:
        stream = bz2.BZ2Decompressor() if ending == ".bz2" else lzma.LZMADecompressor()
        while not stream.eof:
            compressed = compressed or (file.read(PART) if stream.needs_input else b"")
            if stream.needs_input and not compressed:
                raise EOFError("it ends within compressed data")
            yield stream.decompress(compressed, PART)
            compressed = b""
        compressed = stream.unused_data.lstrip(b"\0")
        while not compressed and (more := file.read(PART)):
            compressed = more.lstrip(b"\0")


def read_text(path: Path) -> str:
    """The text of a file, without a byte-order mark. Raises UserError naming the file and its likely encoding."""
    content = read_bytes(path)
    kind = next((kind for magic, kind in MAGIC.items() if content.startswith(magic)), None)
    if kind:
        raise UserError(f"data.source: {path} is {kind}, not a text file; give it the ending of what it is")
    if content.startswith(UTF_32):
        raise UserError(f"data.source: {path} is encoded in UTF-32, not in UTF-8. {_how_to_convert(path, 'UTF-32')}")
    if content.startswith(UTF_16) or content[:4000].count(0) > len(content[:4000]) // 4:
        raise UserError(f"data.source: {path} is encoded in UTF-16, not in UTF-8. {_how_to_convert(path, 'UTF-16')}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"data.source: {path} {_what_is_wrong(path, content, error)}") from None


class Repeating(dict[str, object]):
    """A JSON object that has some of its names twice; of their values the last is here."""

    repeated: frozenset[str]


def parsed_record(text: str) -> object:
    """A JSON value, in which an object with a name twice is ``Repeating``. Raises ValueError."""
    value: object = parse_json(text, _object)
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeating, names = Repeating(found), [name for name, _ in pairs]
    repeating.repeated = frozenset(name for name in names if names.count(name) > 1)
    return repeating


def _what_is_wrong(path: Path, content: bytes, error: UnicodeDecodeError) -> str:
    line = content.count(b"\n", 0, error.start) + 1
    where = f"is not encoded in UTF-8: line {line} has the byte 0x{content[error.start]:02X}"
    high = sum(byte >= 0x80 for byte in content)
    if 3 * high > len(content):
        return f"{where}. Find out which encoding it has. {_how_to_convert(path, 'ENCODING')}"
    return f"{where}. It looks like Latin-1 (Windows-1252). {_how_to_convert(path, 'WINDOWS-1252')}"


def _how_to_convert(path: Path, encoding: str) -> str:
    name = path.name
    return f"Save it as UTF-8, for example: iconv -f {encoding} -t UTF-8 '{name}' > 'utf8-{name}'"
