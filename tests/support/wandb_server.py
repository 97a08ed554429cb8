"""A server on the loopback that keeps the runs wandb's own client sends: what that needs of GraphQL and file stream."""

import gzip
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from loopback import Handler, serving

HISTORY, SUMMARY = "wandb-history.jsonl", "wandb-summary.json"


@dataclass
class StoredRun:
    """One run on the server."""

    upsert: dict[str, Any]
    """What the client last said of it."""
    lines: dict[int, str] = field(default_factory=dict)
    """Position in the history → the line."""
    written: list[int] = field(default_factory=list)
    """Positions, in the order in which they were written."""
    summary: dict[str, Any] = field(default_factory=dict)
    exit_codes: list[int] = field(default_factory=list)

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows in their order."""
        return [json.loads(self.lines[position]) for position in sorted(self.lines)]


@dataclass
class Server:
    """The runs, by id, and the server's address."""

    url: str = ""
    runs: dict[str, StoredRun] = field(default_factory=dict)

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Answer one operation; an unknown one is an error for the client, as on the real server."""
        (operation,) = re.findall(r"^\s*(?:query|mutation) (\w+)", query, re.M)
        if operation == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if operation == "Viewer":
            return {"viewer": {"id": "1", "entity": "someone", "username": "someone", "flags": "{}"}}
        if operation == "RunResumeStatus":
            run = self.runs.get(variables["name"])
            return {"model": {"id": "1", "name": "p", "entity": _entity(), "bucket": run and self._bucket(run)}}
        if operation == "UpsertBucket":
            name = variables["name"]
            inserted = name not in self.runs
            run = self.runs.setdefault(name, StoredRun({}))
            run.upsert |= {key: value for key, value in variables.items() if value is not None}
            return {"upsertBucket": {"bucket": self._bucket(run), "inserted": inserted}}
        if operation == "CreateRunFiles":
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": []}}
        raise LookupError(operation)

    def _bucket(self, run: StoredRun) -> dict[str, Any]:
        return {
            "id": run.upsert["name"],
            "name": run.upsert["name"],
            "displayName": run.upsert.get("displayName"),
            "project": {"id": "1", "name": run.upsert.get("project"), "entity": _entity()},
            "config": run.upsert.get("config", "{}"),
            "summaryMetrics": json.dumps(run.summary),
            "logLineCount": 0,
            "eventsLineCount": 0,
            "historyLineCount": len(run.lines),
            "historyTail": json.dumps([run.lines[max(run.lines)]] if run.lines else []),
            "eventsTail": "[]",
            "tags": run.upsert.get("tags", []),
            "wandbConfig": json.dumps({"t": 1}),
        }

    def file_stream(self, name: str, body: dict[str, Any]) -> None:
        """Write a chunk of a run's files at its offset."""
        run = self.runs[name]
        for file, chunk in body.get("files", {}).items():
            for position, line in enumerate(chunk["content"], start=chunk["offset"]):
                if file == HISTORY:
                    run.lines[position] = line
                    run.written.append(position)
                elif file == SUMMARY:
                    run.summary = json.loads(line)
        if body.get("complete"):
            run.exit_codes.append(body.get("exitcode", 0))


def _entity() -> dict[str, str]:
    return {"id": "1", "name": "someone"}


@contextmanager
def wandb_server() -> Iterator[Server]:
    """Serve on a free port of the loopback."""
    server = Server()

    class Requests(Handler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                raw = gzip.decompress(raw)
            answer: dict[str, Any] = {}
            if self.path == "/graphql":
                body = json.loads(raw)
                try:
                    answer = {"data": server.graphql(body["query"], body.get("variables") or {})}
                except LookupError as error:
                    answer = {"errors": [{"message": f"unknown: {error}"}]}
            elif self.path.endswith("/file_stream"):
                server.file_stream(self.path.split("/")[-2], json.loads(raw))
            self.reply(json.dumps(answer).encode(), {"Content-Type": "application/json"})

    with serving(Requests) as server.url:
        yield server
