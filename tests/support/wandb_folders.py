"""Reads back what wandb writes offline."""

import json
import struct
from pathlib import Path
from typing import Any


def stored(folder: Path) -> list[Any]:
    """The records of the only run below ``folder``, from its transaction log (the record format of LevelDB's log)."""
    from wandb.proto import wandb_internal_pb2 as protobuf

    (path,) = folder.rglob("*.wandb")
    data, position, parts, records = path.read_bytes(), 7, b"", []
    while position < len(data):
        if (left := 32768 - position % 32768) < 7:  # a block's end is too short for a header
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(protobuf.Record.FromString(parts))
            parts = b""
    return records


def rows(records: list[Any]) -> list[dict[str, Any]]:
    """The rows of the history, in the order in which they were written."""
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]


def summary(records: list[Any]) -> dict[str, Any]:
    """The values beside the run's name, as the last record to set each left them."""
    return {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for record in records
        if record.WhichOneof("record_type") == "summary"
        for item in record.summary.update
    }
