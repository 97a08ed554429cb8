"""A finished run put to use: its best checkpoint, its tokenizer, its classes and how it cuts a text."""

from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

from batchscope.data.spec import Truncation
from batchscope.data.tokenizer_errors import explained
from batchscope.data.tokens import load_tokens
from batchscope.errors import UserError
from batchscope.files import read_json
from batchscope.hardware.device import Place, pick_place
from batchscope.model.checkpoint import load_checkpoint
from batchscope.model.classifier import TextClassifier
from batchscope.provenance.fingerprint import file_hash
from batchscope.provenance.inputs import check_written
from batchscope.provenance.layout import RESULTS, Layout, checkpoints_of
from batchscope.provenance.records import RunManifest, TokensManifest

LIKE = "a run's folder looks like results/demo/runs/bert/bs64/constant/seed1, or in short demo/bert/bs64/constant/seed1"


class FinishedRun(NamedTuple):
    """What is needed to use a run's model on new texts."""

    name: str
    """The run below ``runs/``, such as ``bert/bs64/constant/seed1``."""
    model: TextClassifier
    """Of the best epoch, in evaluation mode."""
    tokenizer: PreTrainedTokenizerFast
    classes: list[str]
    """Names in label order."""
    max_length: int
    """Tokens per text, special tokens included."""
    truncation: Truncation
    place: Place
    """Device and precision: the run's own precision, in which its predictions were made."""


def run_folder(named: str) -> Path:
    """The folder of a run: a path, or ``study/model/bs64/policy/seed1``. Raises UserError if there is none."""
    study, _, run = named.partition("/")
    places = (Path(named), RESULTS / study / "runs" / run)
    found = next((place for place in places if (place / "manifest.json").is_file()), None)
    if found is None:
        raise UserError(f"there is no finished run {named}; {LIKE}")
    return found


def open_run(folder: Path, device: str) -> FinishedRun:
    """The run in a folder, its model loaded.

    Raises UserError for a file that cannot be read, DamagedFileError for one that is not as its job left it, and
    UserError where the tokens in the study are not those that the run was trained with.
    """
    layout, model_name = Layout.of_run(folder), Layout.model_of_run(folder)
    name = folder.absolute().relative_to(layout.study.absolute() / "runs").as_posix()
    tokens_folder = layout.tokens(model_name)
    try:
        manifest: RunManifest = read_json(folder / "manifest.json")
        tokens: TokensManifest = read_json(tokens_folder / "manifest.json")
        trained_with, precision = manifest["tokens"]["validation"], manifest["precision"]
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"{folder / 'manifest.json'} names the precision {precision!r}")
        max_length, truncation = int(str(tokens["spec"]["max_length"])), tokens["spec"]["truncation"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read the manifests of {folder} and {tokens_folder}: {error}; {LIKE}") from None
    validation = tokens_folder / "validation.arrow"
    if not validation.is_file() or file_hash(validation) != trained_with:
        raise UserError(
            f"{tokens_folder} does not hold the tokens that {name} was trained with, so its tokenizer may not be the "
            "run's; start the workflow of the study again"
        )
    check_written(layout, f"train/{name}", ["*/manifest.json", "*/best.safetensors"])
    check_written(layout, f"tokenize/{model_name}", ["*/tokenizer/*"])
    place = pick_place(device, precision)
    model, _ = load_checkpoint(checkpoints_of(folder)["best"], place.device)
    with explained(f"cannot load {tokens_folder / 'tokenizer'}", "Start the workflow of the study again"):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(tokens_folder / "tokenizer")
    classes = load_tokens(validation).classes
    return FinishedRun(name, model, tokenizer, classes, max_length, truncation, place)  # type: ignore[arg-type]
