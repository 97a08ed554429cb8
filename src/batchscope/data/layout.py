"""Which files of a folder hold reviews, and of which split: by their names alone, without opening one.

A file belongs to the source's own train, validation or test set if its name has a word for it
(``train-00000-of-00002``, ``reviews_test``, ``devSet``), or else if one of its folders is called so
(``test/0000.parquet``). ``eval`` is the test set, or beside a test set the validation set. If the name of any file has
such a word, files without one (companion tables, ``unsupervised``) are left out; otherwise all files are training
data. Hidden files and folders never hold reviews. Every file of the folder is a part of the layout, or is named among
those left out.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from batchscope.data.records import LeftOut, SplitName
from batchscope.errors import UserError

TABLES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
"""Endings that may follow those of ``TABLES``, except ``.parquet``."""
READ = "a .parquet, .csv, .tsv, .jsonl or .json file (all but .parquet may be compressed: .gz, .bz2, .xz, .zst)"
NOT_READ = (
    *(".zip", ".tar", ".tgz", ".7z", ".rar", ".xls", ".xlsx", ".ods", ".arrow", ".feather", ".orc", ".avro"),
    *(".pkl", ".pickle", ".db", ".sqlite", ".sqlite3", ".h5", ".hdf5", ".xml", ".lz4", ".lzma", ".br", ".z"),
    *(".part", ".partial", ".crdownload", ".download"),
)
"""Endings of files that may hold reviews and are not read: beside a split of that name they are refused."""

TRAIN = ("train", "training", "trainset")
VALIDATION = ("validation", "valid", "val", "dev", "devel", "development", "validset", "valset", "devset")
TEST = ("test", "testing", "testset")
EVALUATION = ("eval", "evaluation", "evalset")
WORDS = {
    word: kind
    for kind, words in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST), ("evaluation", EVALUATION))
    for word in words
}
UNLABELLED_FOLDER = "unsup"
NAMED = 10

HIDDEN = "it is hidden, or a copy that a program keeps"
METADATA = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
"""Files in which the hub's library describes a data set."""
NO_REVIEWS = "this kind of file is not read"
NO_SPLIT = "its name says no split, while the names of other files do"
UNLABELLED = "its reviews have no labels"
BESIDE_TEXTS = "the folder is read as one text file per review"


class TableFile(NamedTuple):
    """A file with one review per row."""

    path: Path
    name: str
    """Path below the source."""
    origin: SplitName
    """The split that its name says, ``train`` if none."""


class TextFolder(NamedTuple):
    """One split of the aclImdb layout: a folder per class, a file per review."""

    path: Path
    name: str
    """Path below the source."""
    origin: SplitName
    files: list[tuple[str, Path]]
    """(class, file) in the order of the names."""


class Layout(NamedTuple):
    """A folder, file by file. Either ``tables`` or ``texts`` is empty."""

    tables: list[TableFile]
    texts: list[TextFolder]
    left_out: list[LeftOut]


def folder_layout(root: Path) -> Layout:
    """The layout of a folder. Raises UserError for a folder without reviews and for names that can mean two things."""
    files, left_out = _visible(root)
    texts, others = _text_folders(root, files)
    tables = [] if texts else [file for file in others if table_ending(file) and file.name not in METADATA]
    for file in [*tables, *(review for folder in texts for _, review in folder.files)]:
        _refuse_unreadable_file(root, file)
    known = set(tables)
    rest = [file for file in others if file not in known]
    for file in rest:
        _refuse_a_split(root, file)
    left_out += left_out_of(root, ((file, _reason(file)) for file in rest))
    if texts:
        return Layout([], texts, left_out)
    if not tables:
        raise UserError(
            f"data.source: {root} holds no reviews. It needs {READ}, or folders train/CLASS/*.txt and test/CLASS/*.txt"
            + (". It holds " + ", ".join(entry["name"] for entry in left_out[:5]) if left_out else "")
        )
    return _tables(root, tables, left_out)


def counted_files(source: Path) -> tuple[list[Path], list[str]]:
    """The files of a source that are read, and the names of those left out that may hold reviews too.

    The corpus depends on these: it is made again where a file is new that it must read or name. Hidden files and
    such as a README are neither. Raises UserError as ``folder_layout`` does.
    """
    if not source.is_dir():
        return [source], []
    layout = folder_layout(source)
    files = [file.path for file in layout.tables] + [file for folder in layout.texts for _, file in folder.files]
    return files, [entry["name"] for entry in layout.left_out if entry["reason"] not in (HIDDEN, NO_REVIEWS)]


def origins(names: Iterable[str]) -> dict[str, SplitName | None]:
    """Name of a file or split, such as ``plain_text/train/0000`` → the split that it says, None if it says none.

    Raises UserError for a name that says two, or ``eval`` beside both a test and a validation set.
    """
    found = {name: _kind(name) for name in names}
    kinds = set(found.values())
    if "evaluation" in kinds and {"test", "validation"} <= kinds:
        name = next(name for name, kind in found.items() if kind == "evaluation")
        raise UserError(
            f"data.source: {name!r} can be a validation or a test set, and there are other files for both; rename it"
        )
    evaluation: SplitName = "validation" if "test" in kinds else "test"
    meaning: dict[str | None, SplitName | None] = {
        None: None, "train": "train", "validation": "validation", "test": "test", "evaluation": evaluation
    }  # fmt: skip
    return {name: meaning[kind] for name, kind in found.items()}


def table_ending(path: Path) -> str | None:
    """``.csv`` of ``train.CSV.gz``: the ending that says how a table is read, None where the file is no table."""
    first, last = ([""] + [ending.lower() for ending in path.suffixes])[-2:] if path.suffixes else ("", "")
    if last in TABLES:
        return last
    return first if last in COMPRESSED and first in TABLES and first != ".parquet" else None


def in_order(paths: Iterable[Path]) -> list[Path]:
    """By name, numbers by value: 2_1.txt before 10_1.txt."""
    return sorted(paths, key=lambda path: [(p.isdigit(), int(p) if p.isdigit() else p) for p in _pieces(path)])


def left_out_of(root: Path, files: Iterable[tuple[Path, str]]) -> list[LeftOut]:
    """An entry per file; of more than ``NAMED`` in one folder and for one reason, the first and how many more."""
    groups: dict[tuple[Path, str], list[str]] = {}
    for path, reason in files:
        groups.setdefault((path.parent, reason), []).append(_shown(path.relative_to(root)))
    entries: list[LeftOut] = []
    for (_, reason), names in groups.items():
        shown = names if len(names) <= NAMED else [f"{names[0]} and {len(names) - 1:,} more"]
        entries += [LeftOut(name=name, reason=reason) for name in shown]
    return entries


def _pieces(path: Path) -> list[str]:
    return [piece for piece in re.split(r"(\d+)", path.as_posix()) if piece]


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "~$")) or name in ("__MACOSX", "__pycache__", "_temporary")


def _visible(root: Path) -> tuple[list[Path], list[LeftOut]]:
    """The files that are not hidden, in order, and the hidden files and folders. Links to folders are followed."""
    visible, hidden = [], []
    for place, folders, files in os.walk(root, onerror=_refuse_unreadable, followlinks=True):
        here = Path(place)
        hidden += [here / name for name in sorted(folders) + sorted(files) if _is_hidden(name)]
        folders[:] = sorted(name for name in folders if not _is_hidden(name) and not _leads_back(root, here / name))
        visible += [here / name for name in files if not _is_hidden(name)]
    return in_order(visible), left_out_of(root, ((path, HIDDEN) for path in hidden))


def _refuse_unreadable(error: OSError) -> None:
    raise UserError(f"data.source: cannot read the folder {error.filename}: {error.strerror}")


def _refuse_unreadable_file(root: Path, file: Path) -> None:
    """Raises UserError for a table or a text that no record can name, or that cannot be read to its end."""
    name = file.relative_to(root)
    if _shown(name) != name.as_posix():
        raise UserError(
            f"data.source: the name of {_shown(name)} in {root} is not UTF-8, or has a control character; rename it"
        )
    if not file.is_file():
        what = "a pipe or a device, not a file" if file.exists() else "a link to a file that is not there"
        raise UserError(f"data.source: {name} in {root} is {what}; remove it")


def _shown(name: Path) -> str:
    """A relative path, in which bytes that are not UTF-8 and control characters are escapes."""
    text = os.fsencode(name.as_posix()).decode("utf-8", "backslashreplace")
    return "".join(character if ord(character) >= 0x20 else f"\\x{ord(character):02x}" for character in text)


def _leads_back(root: Path, folder: Path) -> bool:
    """Whether a folder is a link to one that contains it, or by which the walk from ``root`` has come."""
    if not folder.is_symlink():
        return False
    target = folder.resolve()
    above = [parent for parent in folder.parents if parent.is_relative_to(root)]
    return any(parent.resolve().is_relative_to(target) for parent in above)


def _text_folders(root: Path, files: list[Path]) -> tuple[list[TextFolder], list[Path]]:
    """The splits of the aclImdb layout, and the files that are in none of them."""
    found: dict[Path, list[tuple[str, Path]]] = {}
    others = []
    for file in files:
        folder = file.parent.parent
        in_class = len(file.relative_to(root).parts) >= 3 and file.parent.name != UNLABELLED_FOLDER
        if in_class and file.suffix.lower() == ".txt" and folder_kind(folder.name):
            found.setdefault(folder, []).append((file.parent.name, file))
        else:
            others.append(file)
    names = {folder: folder.relative_to(root).as_posix() for folder in found}
    origin = origins(names.values())
    folders = [
        TextFolder(folder, names[folder], origin[names[folder]] or "train", reviews)
        for folder, reviews in found.items()
    ]
    return folders, others


def _tables(root: Path, files: list[Path], left_out: list[LeftOut]) -> Layout:
    """The tables of a folder, those left out that say no split where others do."""
    names = {file: file.relative_to(root).as_posix() for file in files}
    bare = {file: _without_endings(names[file]) for file in files}
    first: dict[str, Path] = {}
    for file in files:
        first.setdefault(bare[file], file)
    for file in files:
        folders = [parent.as_posix() for parent in Path(bare[file]).parents]
        other = next((first[name] for name in [*folders, bare[file]] if name in first), file)
        if other is not file:
            raise UserError(
                f"data.source: {names[other]} and {names[file]} in {root} can be the same reviews twice; remove or "
                "rename one of them"
            )
    origin = origins(bare.values())
    named = [file for file in files if origin[bare[file]]]
    unnamed = [file for file in files if not origin[bare[file]]]
    if named and unnamed and "train" not in origin.values():
        raise UserError(
            f"data.source: {root} has {names[named[0]]}, but no file whose name says `train`. If {names[unnamed[0]]} "
            "holds the reviews for training, rename it: train.csv, say"
        )
    tables = [TableFile(file, names[file], origin[bare[file]] or "train") for file in named or unnamed]
    return Layout(tables, [], left_out + left_out_of(root, ((file, NO_SPLIT) for file in unnamed if named)))


def _refuse_a_split(root: Path, file: Path) -> None:
    """Raises UserError for a file that is not read although its name, or that of a folder, says that it is a split."""
    name = file.relative_to(root)
    ending = "".join(file.suffixes[-1:]).lower()
    said = _words_of(_without_endings(file.name)) or any(
        folder_kind(folder) for folder in name.parts[:-1] if ending in NOT_READ
    )
    if (table_ending(file) or ending in NOT_READ or ending in COMPRESSED) and said:
        raise UserError(
            f"data.source: {name} in {root} is named like a split, but is not read "
            + (f"because {BESIDE_TEXTS}" if table_ending(file) else f"because it is not {READ}")
            + ". Convert it, or move it out of the folder"
        )


def _reason(file: Path) -> str:
    if file.parent.name == UNLABELLED_FOLDER:
        return UNLABELLED
    return BESIDE_TEXTS if table_ending(file) and file.name not in METADATA else NO_REVIEWS


def _without_endings(name: str) -> str:
    """``data/train`` of ``data/train.csv.gz``; dots that begin no known ending stay: ``v1.2_test``."""
    path = Path(name)
    while path.suffix.lower() in (*TABLES, *COMPRESSED, *NOT_READ):
        path = path.with_suffix("")
    return path.as_posix()


def folder_kind(name: str) -> str | None:
    """The split that the whole name of a folder says, as ``test``, ``split=test`` or ``test.csv``, which Spark writes;
    numbers and punctuation do not count."""
    words = _words(_without_endings(name.removeprefix("split=")))
    return WORDS.get(words[0]) if len(words) == 1 else None


def _kind(name: str) -> str | None:
    """What the name of a file or split says, or else the nearest of its folders."""
    *folders, stem = name.split("/")
    found = _words_of(stem)
    if len(found) > 1:
        raise UserError(f"data.source: the name {name!r} says {' and '.join(sorted(found))}; rename it after one split")
    return next(iter(found), None) or next((kind for folder in folders[::-1] if (kind := folder_kind(folder))), None)


def _words_of(stem: str) -> set[str]:
    return {WORDS[word] for word in _words(stem) if word in WORDS}


def _words(name: str) -> list[str]:
    """``reviews``, ``test``, ``set`` of ``reviews_testSet01``."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+", name)]
