"""A checkpoint's folder on disk: which of its files a model is loaded from, and whether they are what they seem.

Pure, no torch: the config's fingerprint counts these files and no others.
"""

import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from batchscope.errors import UserError
from batchscope.files import leads_out, parse_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
READ = re.compile(
    r"config\.json|configuration\.json|model\.safetensors|model\.safetensors\.index\.json|adapter_config\.json"
    r"|added_tokens\.json|special_tokens_map\.json|tokenizer(\.\d[\w.]*)?\.json|tokenizer_config\.json|processor_config\.json"
    r"|(entity_)?vocab(-src|-tgt)?\.(json|txt)|merges\.txt|dict\.txt|emoji\.json|normalizer\.json|byte_maps\.json|tekken\.json"
    r"|bpe\.codes|[\w.-]+\.(model|tiktoken|tokenizer|bpe|vocab)"
)
"""File names that transformers reads for a model or a tokenizer."""
PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "tf_model.h5", "flax_model.msgpack")
OTHER_FORMATS = (".gguf", ".onnx", ".tflite", ".ot", ".mlmodel", ".npz")
POINTER = b"version https://git-lfs"
OWN_CODE = (
    "it needs Python code of its own (`auto_map` in its config.json), which is never run; choose a model whose "
    "architecture transformers has"
)


def asks_for_code(error: BaseException) -> bool:
    """Whether transformers refuses a checkpoint because it would have to run its code."""
    return "trust_remote_code" in str(error)


def model_files(folder: Path) -> list[Path]:
    """Files of a checkpoint's folder that the model or its tokenizer is loaded from, sorted by name.

    Weights are those that transformers takes: ``model.safetensors``, or else the shards that the index names. Every
    other file (a README, ``.git``, other formats of the weights, a training's state) leaves the model as it is. If
    there are no such weights, all files directly in the folder count, so that adding the weights changes the list.
    """
    there = sorted(path for path in folder.iterdir() if path.is_file())
    read = [path for path in there if READ.fullmatch(path.name)]
    if (folder / WEIGHTS).is_file():
        return [path for path in read if path.name != INDEX]
    if (folder / INDEX).is_file():
        return sorted({*read, *(path for path in shards(folder) if path.is_file())})
    return there


def shards(folder: Path) -> list[Path]:
    """Files that the index of a sharded checkpoint names; none where it cannot be read or names others than its own."""
    try:
        names = set(parse_json((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        return [] if any(map(leads_out, names)) else sorted(folder / name for name in names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def check_described(folder: Path) -> None:
    """Refuse what has no config.json, and so neither model nor tokenizer. Raises UserError, which says what to do."""
    if not folder.is_dir():
        raise UserError(f"checkpoint: {folder} is a file; name the folder that holds config.json and {WEIGHTS}")
    if not (folder / "config.json").is_file():
        below = sorted(path.parent for path in folder.glob("*/config.json"))
        there = f", but {below[0]} has; name that" if below else ""
        raise UserError(f"checkpoint: {folder} has no config.json{_adapter(folder) or there}")


def check_folder(folder: Path) -> None:
    """Refuse a folder that no model can be loaded from. Raises UserError, which says what to do."""
    check_described(folder)
    for path in model_files(folder):
        if _begins_with(path, POINTER):
            raise UserError(
                f"checkpoint: {path} is a Git LFS pointer, not the file itself; "
                f"run `git lfs pull` in {folder}, or download the file again"
            )
    weights = _weights(folder)
    if not (folder / WEIGHTS).exists() and (folder / INDEX).is_file() and not (weights and _has_metadata(folder)):
        raise UserError(
            f"checkpoint: {folder / INDEX} is damaged: it needs a `weight_map` from each weight to a file of {folder}, "
            "and `metadata`; download it again, or save the model again"
        )
    if not weights:
        raise UserError(f"checkpoint: {folder} has no {WEIGHTS}{_other_weights(folder)}")
    for path in weights:
        if not path.is_file():
            raise UserError(f"checkpoint: {INDEX} names {path.name}, which {folder} does not have; download it again")
        if problem := damage(path):
            raise UserError(f"checkpoint: {path} is not a whole safetensors file: {problem}; download or save it again")
    _check_each_weight_is_once(weights)


def _check_each_weight_is_once(files: Iterable[Path]) -> None:
    """transformers takes one of two weights of the same name, whatever the index says."""
    held: dict[str, Path] = {}
    for path in files:
        for name in _header(path).keys() - {"__metadata__"}:
            if name in held:
                raise UserError(
                    f"checkpoint: {held[name]} and {path.name} both hold the weight {name!r}; download the model "
                    "again, or save it again"
                )
            held[name] = path


def _has_metadata(folder: Path) -> bool:
    return "metadata" in parse_json((folder / INDEX).read_text(encoding="utf-8"))


def stored_kinds(folder: Path) -> dict[str, str]:
    """Name of a tensor in the weights → kind of its numbers, such as ``F32``. The files must be sound."""
    return {
        name: entry["dtype"]
        for path in _weights(folder)
        for name, entry in _header(path).items()
        if name != "__metadata__"
    }


def _weights(folder: Path) -> list[Path]:
    return [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else shards(folder)


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = parse_json(file.read(length))
    return header


def damage(path: Path) -> str | None:
    """What is wrong with a safetensors file's header or size; None for a sound one.

    The format: 8 bytes with the header's length, the header (JSON, each tensor with ``data_offsets``), then the data.
    """
    size = path.stat().st_size
    if size < 8:
        return f"it has {size} bytes"
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
    if length > size - 8:
        return f"its header would have {length} bytes, the file has {size}"
    try:
        ends = [entry["data_offsets"][1] for name, entry in _header(path).items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "its header cannot be read"
    expected = 8 + length + max(ends, default=0)
    return None if size == expected else f"it has {size} bytes, its header says {expected}"


def _begins_with(path: Path, beginning: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(beginning)) == beginning


def _adapter(folder: Path) -> str:
    """Whether the folder is a PEFT adapter, which has no encoder of its own."""
    if not (folder / "adapter_config.json").is_file():
        return ""
    return ": it is an adapter of another model; merge it (`merge_and_unload()`), save the whole model and name that"


def _other_weights(folder: Path) -> str:
    """How to convert weights of another format."""
    if adapter := _adapter(folder):
        return adapter
    if (folder / WEIGHTS).is_symlink() and not (folder / WEIGHTS).exists():
        return ", only a link of that name to a file that is not there; download it again"
    if (folder / WEIGHTS).exists():
        return ", only something of that name that is no file"
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if not pickles:
        others = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in OTHER_FORMATS)
        if others:
            return f", only {others[0]}, a format that cannot be trained from; take the checkpoint in safetensors"
        others = sorted(path.name for path in folder.glob("*.safetensors"))
        return f", but {others[0]}; rename that if it holds the encoder's weights" if others else ""
    return (
        f", only {pickles[0]}, which may run code when it is read and is refused; if you trust it, convert it once: "
        f"python -c \"from transformers import AutoModel; AutoModel.from_pretrained('{folder}').save_pretrained("
        f"'{folder}')\""
    )
