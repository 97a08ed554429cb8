"""Whether a checkpoint's weights fit the encoder that they were loaded into.

transformers fills what a file does not hold with random numbers, and leaves out what it does not know. For a pooler or
a head that is right: they are not used. Where a weight of the encoder itself is missing, the training would begin with
random weights.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from transformers import PreTrainedModel

from batchscope.errors import UserError
from batchscope.model.records import LoadingReport

TRAINABLE = ("F64", "F32", "F16", "BF16")
"""Kinds of numbers that a weight may be stored in."""
UNUSED = ("pooler", "contact_head")
"""Parts of transformers' encoders that do not change the hidden states."""
WRAPPERS = {"_orig_mod.": "torch.compile", "module.": "DataParallel", "_fsdp_wrapped_module.": "FSDP"}
"""Prefixes of names that come from saving a wrapped model."""
LAYER = re.compile(r"(?:^|\.)(\d+)\.")
NAMED = 3


def loading_report(encoder: PreTrainedModel, info: dict[str, Any], source: str, quantised: bool) -> LoadingReport:
    """Judge what ``from_pretrained(..., output_loading_info=True)`` reports, for the run's manifest.

    Raises UserError, naming weights, where a weight of the encoder is missing, has another shape, or is left over.
    """
    own = set(encoder.state_dict())
    missing = sorted(info["missing_keys"])
    unexpected = sorted(info["unexpected_keys"])
    wrong = [name for name in missing if not _is_unused(name)]
    mismatched = [item for item in sorted(info["mismatched_keys"]) if not _is_unused(item[0])]
    left_over = [name for name in unexpected if _is_of_encoder(name, encoder)]
    problems = []
    if mismatched:
        problems += [f"{name} has the shape {_shape(file)} in the file, but {_shape(config)} by config.json"
                     for name, file, config in mismatched[:NAMED]]  # fmt: skip
    if wrong:
        problems.append(f"{len(wrong)} of the encoder's {len(own)} weights are not in the file: {_some(wrong)}")
    if left_over:
        problems.append(f"the file has {_count(left_over)} that the encoder does not have: {_some(left_over)}")
    problems += [str(message) for message in info.get("error_msgs", [])][:NAMED]
    if problems:
        advice = _advice(unexpected, wrong, left_over, mismatched=bool(mismatched), quantised=quantised)
        raise UserError(
            f"the weights of {source!r} do not fit its encoder ({encoder.config.model_type}): "
            + "; ".join(problems)
            + f".\n{advice}"
        )
    return {"loaded": len(own) - len(missing), "missing": missing, "unexpected": unexpected}


def refuse_quantised(encoder: PreTrainedModel, kinds: Mapping[str, str], source: str) -> None:
    """Raises UserError for a weight that is stored as whole numbers or in 8 bits: loaded as it is, it is another one.

    ``kinds`` are those of the file, by its own names. transformers converts them without a word.
    """
    own = dict(encoder.named_parameters())
    for name, kind in kinds.items():
        pieces = name.split(".")
        if (
            kind not in TRAINABLE
            and not _is_unused(name)
            and any(".".join(pieces[n:]) in own for n in range(len(pieces)))
        ):
            raise UserError(
                f"the weights of {source!r} are quantised: {name} is stored as {kind}, and a training starts from "
                f"{', '.join(TRAINABLE)}. Take the checkpoint in full precision"
            )


def _is_unused(name: str) -> bool:
    return any(part in UNUSED for part in name.split("."))


def _is_of_encoder(name: str, encoder: PreTrainedModel) -> bool:
    """Whether a name in the file is of one of the encoder's parts, and not of a head on top of it."""
    prefix = f"{encoder.base_model_prefix}."
    bare = name.removeprefix(prefix)
    if _is_unused(bare) or bare in dict(encoder.named_buffers()):
        return False
    parts = {own.split(".")[0] for own in encoder.state_dict()} | {name for name, _ in encoder.named_children()}
    return (bare != name and prefix != "model.") or bare.split(".")[0] in parts


def _advice(unexpected: list[str], missing: list[str], left_over: list[str], mismatched: bool, quantised: bool) -> str:
    """What the user can do, by the most likely cause."""
    if quantised:
        return "Its config.json has a quantization_config: train from the checkpoint in full precision instead."
    if prefix := _prefix(unexpected, missing):
        wrapper = next((f", which {name} adds" for part, name in WRAPPERS.items() if part in prefix), "")
        return (
            f"The names in the file begin with {prefix!r}{wrapper}: save the encoder itself with save_pretrained, or "
            "remove this beginning from the names."
        )
    if mismatched:
        return "Take config.json and weights from the same checkpoint, or correct the size in config.json."
    if all(LAYER.search(name) for name in [*missing, *left_over]) and not (missing and left_over):
        return (
            f"The file has {'fewer' if missing else 'more'} layers than config.json says: set its number of layers to "
            "that of the file, or take both from the same checkpoint."
        )
    return "Take config.json and weights from the same checkpoint, or save the encoder again with save_pretrained."


def _prefix(unexpected: list[str], missing: list[str]) -> str:
    """What comes before a missing weight's name in the file; empty where there is no such name."""
    for name in missing:
        for candidate in unexpected:
            if candidate.endswith(f".{name}"):
                return candidate.removesuffix(name)
    return ""


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:NAMED]) + (", …" if len(listed) > NAMED else "")


def _count(names: list[str]) -> str:
    return "1 weight" if len(names) == 1 else f"{len(names)} weights"


def _shape(size: Iterable[int]) -> str:
    return f"[{', '.join(map(str, size))}]"
