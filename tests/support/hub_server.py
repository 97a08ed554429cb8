"""A hub on the loopback that serves folders of this machine: as much of the Hugging Face API as a download needs."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from loopback import Handler, serving


@dataclass
class Repository:
    """Revisions of one model or data set."""

    commits: dict[str, Path]
    """Commit → folder with its files."""
    names: dict[str, str]
    """Branch or tag → commit."""
    gated: bool = False


@dataclass
class Hub:
    """The repositories by path (``models/ID``, ``datasets/ID``), and what was asked of them."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    downloads: list[str] = field(default_factory=list)
    """Files that were sent."""
    broken: set[str] = field(default_factory=set)
    """Files at which the server fails."""

    def add(self, path: str, folder: Path, *names: str) -> str:
        """Commit a folder's files; ``names`` point to the commit afterwards. Returns it."""
        commit = hashlib.sha1(f"{path} {folder}".encode()).hexdigest()
        repository = self.repositories.setdefault(path, Repository({}, {}))
        repository.commits[commit] = folder
        repository.names |= dict.fromkeys(names, commit)
        return commit


class Refused(Exception):
    """An answer that is no success, with the headers by which the client knows why."""

    def __init__(self, status: int, code: str) -> None:
        self.status, self.headers = status, {"X-Error-Code": code, "X-Error-Message": code}


def _found(hub: Hub, path: str, revision: str) -> tuple[str, Path]:
    repository = hub.repositories.get(path)
    if repository is None:
        raise Refused(404, "RepoNotFound")
    if repository.gated:
        raise Refused(401, "GatedRepo")
    commit = repository.names.get(revision, revision)
    if commit not in repository.commits:
        raise Refused(404, "RevisionNotFound")
    return commit, repository.commits[commit]


def _etag(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _tree(folder: Path) -> list[dict[str, Any]]:
    return [
        {
            "type": "file",
            "path": file.relative_to(folder).as_posix(),
            "size": file.stat().st_size,
            "oid": hashlib.sha1(file.name.encode()).hexdigest(),
        }
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Serve on a free port of the loopback."""
    hub = Hub()

    class Requests(Handler):
        def do_GET(self) -> None:
            self.answer(body=True)

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def answer(self, body: bool) -> None:
            parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
            try:
                if parts[0] == "api" and len(parts) < 6:
                    raise Refused(404, "")
                if parts[0] == "api":
                    kind, owner, name, verb, revision = parts[1:6]
                    commit, folder = _found(hub, f"{kind}/{owner}/{name}", revision)
                    info = {"id": f"{owner}/{name}", "sha": commit, "siblings": [], "private": False, "tags": []}
                    self.reply(json.dumps(_tree(folder) if verb == "tree" else info).encode(), {}, body=body)
                else:
                    kind = "datasets" if parts[0] == "datasets" else "models"
                    owner, name, _, revision, *path = parts[1:] if kind == "datasets" else parts
                    commit, folder = _found(hub, f"{kind}/{owner}/{name}", revision)
                    self.send_file(folder, "/".join(path), commit, body)
            except Refused as reason:
                self.reply(b"", reason.headers, reason.status, body)

        def send_file(self, folder: Path, path: str, commit: str, body: bool) -> None:
            file = folder / path
            if not file.is_file():
                raise Refused(404, "EntryNotFound")
            if body:
                if path in hub.broken:
                    raise Refused(403, "")
                hub.downloads.append(path)
            self.reply(file.read_bytes(), {"ETag": f'"{_etag(file)}"', "X-Repo-Commit": commit}, body=body)

    with serving(Requests) as hub.url:
        yield hub
