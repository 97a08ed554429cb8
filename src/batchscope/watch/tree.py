"""The files of a folder and of all below, looked at again and again: an unchanged folder is not listed twice."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Stamp(NamedTuple):
    """By what a file that was replaced or rewritten is told from the one before."""

    inode: int
    modified: int
    """Nanoseconds."""
    size: int


class _Listing(NamedTuple):
    modified: int
    settled: bool
    """Whether the folder was unchanged when it was listed: a change within the clock's tick would go unseen."""
    files: dict[str, Stamp]
    folders: list[str]


class Tree:
    """Remembers a folder's files by their paths below it.

    A folder's time changes when a file in it is created, renamed or deleted, not when one is written to: right for
    files that are written under another name and renamed.
    """

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._listings: dict[str, _Listing] = {}
        self.listed = 0
        """How many folders were listed so far."""

    def changes(self) -> dict[str, Stamp | None]:
        """Path → stamp of every file that is new or another one than at the last look; None of one that is gone."""
        found: dict[str, Stamp | None] = {}
        waiting, seen = [""], set[str]()
        while waiting:
            folder = waiting.pop()
            listing = self._look(folder, found)
            if listing is not None:
                seen.add(folder)
                waiting += [f"{folder}{name}/" for name in listing.folders]
        for folder in self._listings.keys() - seen:
            found |= {folder + name: None for name in self._listings.pop(folder).files}
        return found

    def _look(self, folder: str, found: dict[str, Stamp | None]) -> _Listing | None:
        """The listing of a folder, made anew where it may have changed; None where there is no such folder."""
        path, known = f"{self.root}/{folder}", self._listings.get(folder)
        try:
            modified = os.stat(path).st_mtime_ns  # noqa: PTH116 (twice as fast as pathlib, for thousands of folders)
            if known and known.modified == modified and known.settled:
                return known
            files, folders = _listed(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        self.listed += 1
        before = known.files if known else {}
        found |= {folder + name: stamp for name, stamp in files.items() if before.get(name) != stamp}
        found |= {folder + name: None for name in before.keys() - files.keys()}
        listing = _Listing(modified, known is not None and known.modified == modified, files, folders)
        self._listings[folder] = listing
        return listing


def _listed(path: str) -> tuple[dict[str, Stamp], list[str]]:
    """Files with their stamps, and folders; hidden files are on their way to another name."""
    files: dict[str, Stamp] = {}
    folders: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir():
                folders.append(entry.name)
            elif not entry.name.startswith("."):
                with suppress(FileNotFoundError):  # deleted just now
                    status = entry.stat()
                    files[entry.name] = Stamp(status.st_ino, status.st_mtime_ns, status.st_size)
    return files, folders
