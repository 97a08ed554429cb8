"""Fingerprints change with what a result depends on, and with nothing else."""

import os
from pathlib import Path

import pytest

from batchscope.provenance import fingerprint
from batchscope.provenance.fingerprint import canonical_json, code_hash, content_hash, describe_code, import_closure

MODULES = {
    "__init__": "",
    "entry": '"""Entry."""\nfrom batchscope.middle import half\n\ndef run(x=1):\n    """Run."""\n    return half(x)\n',
    "middle": "from batchscope import leaf\n\n\ndef half(x):\n    return x / leaf.TWO\n",
    "leaf": "TWO = 2\n",
    "bystander": "COLOUR = 'red'\n",
}


def package(folder: Path, **changed: str) -> Path:
    """A small package named batchscope, some of its modules replaced."""
    for name, text in (MODULES | changed).items():
        path = folder / "batchscope" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "batchscope"


@pytest.fixture
def hash_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Code hash of ``entry`` in the small package after a change of some modules."""

    def compute(**changed: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        monkeypatch.setattr(fingerprint, "PACKAGE", package(folder, **changed))
        return code_hash("batchscope.entry")

    return compute


# ---------------------------------------------------------------------------------------------------------- JSON


def test_one_meaning_has_one_text() -> None:
    assert canonical_json({"b": 5.0e-5, "a": [1, "é"]}) == canonical_json({"a": [1, "é"], "b": 0.00005})
    assert canonical_json({"a": 1}) != canonical_json({"a": "1"})
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


# ---------------------------------------------------------------------------------------------------------- code


@pytest.mark.parametrize(
    "changed",
    [
        {"entry": "# A comment.\n" + MODULES["entry"]},
        {"entry": MODULES["entry"].replace("Run.", "Another docstring.").replace("Entry.", "Another one.")},
        {"entry": MODULES["entry"].replace('    """Run."""\n', "")},
        {"entry": MODULES["entry"].replace("run(x=1):", "run(\n    x = 1,\n):")},
        {"leaf": "TWO = (2)  # a half\n"},
        {"leaf": 'TWO = 2\n"""What a constant means is no code."""\n'},
        {"bystander": "COLOUR = 'blue'\n"},
    ],
    ids=["comment", "docstring", "no docstring", "formatting", "parentheses"]
    + ["docstring of a constant", "a module that is not imported"],
)
def test_what_does_not_count_as_code(hash_of, changed: dict[str, str]) -> None:
    assert hash_of(**changed) == hash_of()


@pytest.mark.parametrize(
    "changed",
    [
        {"leaf": "TWO = 3\n"},
        {"leaf": "TWO = 2.0\n"},
        {"entry": MODULES["entry"].replace("x=1", "x=2")},
        {"middle": MODULES["middle"].replace("/", "//")},
        {"middle": MODULES["middle"] + "\n\nhalf = print\n"},
        {"leaf": "TWO = 'two'\n\n\ndef f():\n    return 'a string that is no docstring'\n"},
    ],
    ids=["constant", "type", "default", "operator", "name", "string"],
)
def test_what_counts_as_code(hash_of, changed: dict[str, str]) -> None:
    assert hash_of(**changed) != hash_of()


def test_the_description_names_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "A = 1\nB = 2\n\n\ndef f():\n    return A\n\n\nclass C:\n    x = 1\n\n    def g(self):\n        return B\n"
    changes = {"f": ("return A", "return -A"), "A": ("A = 1", "A = 3"), "C": ("x = 1", "x = 2"), "C.g": ("n B", "n A")}
    definitions = {}
    for number, (old, new) in enumerate([("", ""), *changes.values()]):
        monkeypatch.setattr(fingerprint, "PACKAGE", package(tmp_path / str(number), leaf=text.replace(old, new)))
        definitions[number] = describe_code("batchscope.entry")["modules"]["batchscope.leaf"]
    for number, name in enumerate(changes, start=1):
        assert {key for key in definitions[0] if definitions[0][key] != definitions[number][key]} == {name}


def test_templates_count_for_the_module_that_renders_them(hash_of, tmp_path: Path) -> None:
    rendering = {"leaf": "from jinja2 import Environment\n\nTWO = 2\n"}
    hashes = []
    for text in ("<h1>", "<h2>"):
        folder = tmp_path / str(len(list(tmp_path.iterdir()))) / "batchscope/templates"
        folder.mkdir(parents=True)
        (folder / "page.html").write_text(text)
        hashes.append(fingerprint_in(folder.parent, rendering))
    assert hashes[0] != hashes[1]


def fingerprint_in(folder: Path, changed: dict[str, str]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "PACKAGE", package(folder.parent, **changed))
        return code_hash("batchscope.entry")


def test_the_import_closure_is_transitive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "PACKAGE", package(tmp_path))
    assert import_closure("batchscope.entry") == [f"batchscope{name}" for name in ("", ".entry", ".leaf", ".middle")]


def test_a_cycle_of_imports_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "PACKAGE", package(tmp_path, leaf="import batchscope.entry\n\nTWO = 2\n"))
    assert "batchscope.entry" in import_closure("batchscope.leaf")


def test_a_library_release_counts_and_a_patch_does_not(hash_of, monkeypatch: pytest.MonkeyPatch) -> None:
    def under(release: str, leaf: str) -> str:
        fingerprint._release.cache_clear()
        monkeypatch.setattr(fingerprint, "version", lambda library: release)
        return hash_of(leaf=leaf)

    importing = "TWO = 2\n\n\ndef f():\n    import torch.nn as nn\n\n    return nn\n"
    assert under("2.13.0", importing) == under("2.13.1+cu130", importing) != under("2.14.0", importing)
    assert under("2.13.0", "TWO = 2\n") == under("2.14.0", "TWO = 2\n"), "a stage without the library is left alone"
    monkeypatch.undo()
    fingerprint._release.cache_clear()


def test_the_python_release_does_not_count() -> None:
    """``ast.dump`` of this differs between Python 3.11, 3.12 and 3.13."""
    text = "class A(B):\n    def f(self, x: int = 1) -> str:\n        return f'{x}' if x else None\n"
    assert fingerprint._outline(fingerprint.ast.parse(text)) == (
        "Module(body=[ClassDef(name='A', bases=[Name(id='B', ctx=Load())], body=[FunctionDef(name='f', "
        "args=arguments(args=[arg(arg='self'), arg(arg='x', annotation=Name(id='int', ctx=Load()))], "
        "defaults=[Constant(value=1)]), body=[Return(value=IfExp(test=Name(id='x', ctx=Load()), "
        "body=JoinedStr(values=[FormattedValue(value=Name(id='x', ctx=Load()), conversion=-1)]), orelse=Constant()))], "
        "returns=Name(id='str', ctx=Load()))])])"
    )


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
