"""Fingerprints change with what a result depends on, and with nothing else."""

import os
from pathlib import Path

import pytest
from disks import fill, small_disk_at

from batchscope.errors import UserError
from batchscope.provenance import fingerprint
from batchscope.provenance.fingerprint import canonical_json, content_hash, digest, file_hash, without_places

# ---------------------------------------------------------------------------------------------------------- JSON


def test_one_meaning_has_one_text() -> None:
    assert canonical_json({"b": 5.0e-5, "a": [1, "é"]}) == canonical_json({"a": [1, "é"], "b": 0.00005})
    assert canonical_json({"a": 1}) != canonical_json({"a": "1"})
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


# ------------------------------------------------------------------------------------------------------- content


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("data/a.txt", "data/sub/b.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path / "data"


@pytest.fixture(params=[False, True], ids=["no memory", "memory"])
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "memory.json" if request.param else None


def test_times_and_places_do_not_count(folder: Path, memory: Path | None) -> None:
    before = content_hash(folder, memory)
    os.utime(folder / "a.txt", (0, 0))
    assert content_hash(folder, memory) == before
    assert content_hash(folder.rename(folder.with_name("moved")), memory) == before


def test_a_changed_byte_counts_even_with_an_older_time_and_equal_size(folder: Path, memory: Path | None) -> None:
    before, status = content_hash(folder, memory), (folder / "a.txt").stat()
    for time in (status.st_mtime_ns - 10**9, status.st_mtime_ns):
        (folder / "a.txt").write_text(f"{time % 10}at.txt"[-status.st_size :].ljust(status.st_size))
        os.utime(folder / "a.txt", ns=(time, time))
        assert (folder / "a.txt").stat().st_size == status.st_size
        assert content_hash(folder, memory) != before


def test_names_new_files_and_missing_files_count(folder: Path, memory: Path | None) -> None:
    hashes = [content_hash(folder, memory)]
    (folder / "sub/b.txt").rename(folder / "sub/c.txt")
    hashes.append(content_hash(folder, memory))
    (folder / "d.txt").touch()
    hashes.append(content_hash(folder, memory))
    (folder / "sub/c.txt").unlink()
    hashes.append(content_hash(folder, memory))
    assert len(set(hashes)) == 4


def test_an_unchanged_file_is_read_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_hash(folder, tmp_path / "memory.json")
    monkeypatch.setattr(fingerprint, "file_hash", lambda path: pytest.fail(f"{path} is read again"))
    assert content_hash(folder, tmp_path / "memory.json") == before


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"5", b"null", b"\xff\xfe\x00"])
def test_a_damaged_memory_is_harmless(folder: Path, tmp_path: Path, damage: bytes) -> None:
    memory = tmp_path / "memory.json"
    before = content_hash(folder, memory)
    memory.write_bytes(damage)
    assert content_hash(folder, memory) == before
    assert content_hash(folder, memory) == before


def test_the_text_itself_stays_the_same() -> None:
    """Every fingerprint on users' disks is a hash of it."""
    assert canonical_json({"b": [1, 0.00005], "a": {"ü": None}}) == '{"a":{"ü":null},"b":[1,5e-05]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})


ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""SHA-256 of the three letters, as FIPS 180-2 prints it."""


def test_hashes_are_sha_256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert file_hash(tmp_path / "file") == ABC
    assert digest("abc") == ABC[:16]


def test_the_hash_of_a_content_stays_the_same(folder: Path) -> None:
    """It is recorded on users' disks: a line for each file in order, and the names of the files that do not count."""
    a, b = (file_hash(folder / name) for name in ("a.txt", "sub/b.txt"))
    assert content_hash(folder) == digest(f"a.txt {a}\nsub/b.txt {b}")
    assert content_hash(folder / "a.txt") == digest(f".txt {a}"), "of one file the suffix counts, not the name"
    assert content_hash(folder, files=[folder / "sub/b.txt"]) == digest(f"sub/b.txt {b}")
    assert content_hash(folder, files=[folder / "a.txt"], names=["x", "y"]) == digest(f"a.txt {a}\nx\ny")


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    with pytest.raises(UserError, match=rf"^cannot read {folder}/gone\.txt: No such file or directory$"):
        content_hash(folder, files=[folder / "gone.txt"])


def test_a_memory_that_cannot_be_written_costs_time_alone(folder: Path, tmp_path: Path) -> None:
    expected = content_hash(folder)
    assert content_hash(folder, folder / "a.txt/memory.json") == expected
    with small_disk_at(tmp_path / "disk", "1m") as disk:
        fill(disk)
        assert content_hash(folder, disk / "memory.json") == expected


def test_places_do_not_count_where_the_content_is_named() -> None:
    named = {"content": "hash", "source": "/here", "checkpoint": "/there", "label": "y"}
    assert without_places(named) == {"content": "hash", "label": "y"}
    unnamed = {"source": "hub/name", "checkpoint": "hub/other"}
    assert without_places(unnamed) == unnamed
    for part in ("model", "label_review", "corpus"):
        assert without_places({part: named, "source": "s"}) == {part: without_places(named), "source": "s"}
        assert without_places({part: "a name"}) == {part: "a name"}
    assert without_places({"other": named}) == {"other": named}
