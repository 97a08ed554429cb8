"""A rehearsal of a model, before anything long starts: one training step's passes, one save and one load.

An encoder that cannot do one of them would otherwise fail in its first minute, or after its first epoch.
"""

import logging
import tempfile
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from batchscope.data.tokens import Tokens
from batchscope.errors import UserError
from batchscope.model.checkpoint import load_checkpoint, save_checkpoint
from batchscope.model.classifier import TextClassifier, masked_mean

log = logging.getLogger(__name__)

PADDING_TOLERANCE = 1e-2
"""Relative change of a review's mean hidden state by padding from which on a warning says so."""


def check_model(model: TextClassifier, tokens: Tokens, folder: Path | None = None) -> None:
    """Rehearse the longest and the shortest review of ``tokens`` with a model on the CPU; it is left as it was.

    Checks that the forward pass gives one finite vector per token, that the gradient is finite and reaches the encoder,
    and, where ``folder`` is given, that the model is saved there and loaded again bit for bit. To be called before
    the model moves to its device: a CUDA device does not say what went wrong, and computes nothing afterwards.

    Raises UserError with every problem found.
    """
    training = model.training
    rows = [int(tokens.length.argmax()), int(tokens.length.argmin())]
    ids = torch.from_numpy(tokens.input_ids[rows].astype("int64"))
    mask = torch.arange(ids.shape[1]) < torch.from_numpy(tokens.length[rows].astype("int64")).unsqueeze(1)
    label = torch.from_numpy(tokens.label[rows].astype("int64"))
    try:
        with torch.random.fork_rng(devices=[]):
            problems = _damaged_weights(model) or _problems_of_passes(model.train(), ids, mask, label)
            if not problems and folder is not None:
                problems = _problems_of_saving(model.eval(), ids, mask, folder)
            if not problems:
                _warn_of_padding(model.eval(), ids, mask)
    finally:
        model.zero_grad()
        model.train(training)
    if problems:
        raise UserError(f"the {model.config.model_type} encoder cannot be trained here: " + "; ".join(problems))


def _damaged_weights(model: TextClassifier) -> list[str]:
    """One that is not finite may be of a token or position that the rehearsed reviews do not have."""
    damaged = (name for name, value in model.state_dict().items() if not value.isfinite().all())
    return [f"{name} has values that are not finite: the weights are damaged" for name in islice(damaged, 1)]


def _problems_of_passes(model: TextClassifier, ids: Tensor, mask: Tensor, label: Tensor) -> list[str]:
    """What is wrong with one forward and backward pass; ``ids`` int64 ``[N, L]``, ``mask`` bool, ``label`` ``[N]``."""
    try:
        hidden = model.hidden_states(ids, mask)
    except Exception as error:  # other projects' code: whatever it raises, the encoder cannot be used
        return [f"its forward pass fails{_positions(model, ids)}: {_words(error)}"]
    expected = (*ids.shape, model.head.in_features)
    if not isinstance(hidden, Tensor) or tuple(hidden.shape) != expected:
        found = tuple(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
        return [f"its output is {found}, not one vector per token, {expected} (reviews, tokens, hidden_size)"]
    kept = hidden[mask]
    if len(kept) > 1 and bool((kept == kept[0]).all()):
        return ["its output is the same for every token: its weights are damaged, all zero say, or its dropout is 1"]
    if not hidden.isfinite().all():
        return ["its output is not finite: the weights, or the precision they were saved in, are damaged"]
    try:
        torch.autograd.backward(cross_entropy(model(ids, mask), label))
    except Exception as error:
        return [f"its backward pass fails: {_words(error)}"]
    gradients = [parameter.grad for parameter in model.encoder.parameters() if parameter.grad is not None]
    if not any(gradient.any() for gradient in gradients):
        return ["no gradient reaches its weights"]
    if not all(gradient.isfinite().all() for gradient in gradients):
        return ["its gradient is not finite"]
    return []


def _problems_of_saving(model: TextClassifier, ids: Tensor, mask: Tensor, folder: Path) -> list[str]:
    """What is wrong with a checkpoint of the model: weights or logits that come back changed."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".check.", dir=folder) as temporary:
        path = Path(temporary) / "model.safetensors"
        try:
            save_checkpoint(path, model, {"epoch": 0, "update": 0})
        except (OSError, UserError):
            raise  # a full disk is not the encoder's fault
        except Exception as error:
            return [f"it cannot be saved: {_words(error)}"]
        try:
            again, _ = load_checkpoint(path, ids.device)
        except Exception as error:
            return [f"it cannot be loaded again: {_words(error)}"]
    expected = model.state_dict()
    changed = [name for name, value in again.state_dict().items() if not torch.equal(value, expected[name])]
    if changed:
        return [f"{changed[0]} is not saved as it is"]
    with torch.no_grad():
        if not torch.equal(again(ids, mask), model(ids, mask)):
            return ["once saved and loaded again, it computes other logits from the same weights"]
    return []


@torch.no_grad()
def _warn_of_padding(model: TextClassifier, ids: Tensor, mask: Tensor) -> None:
    """Warn where a review's mean hidden state depends on the padding after it: evaluation pads less than training."""
    row = int(mask.sum(1).argmin())
    length = int(mask[row].sum())

    def pooled(width: int) -> Tensor:
        part = (ids[row : row + 1, :width], mask[row : row + 1, :width])
        return masked_mean(model.hidden_states(*part), part[1])

    try:
        padded, bare = pooled(ids.shape[1]), pooled(length)
    except Exception:
        return  # some encoders want a least number of tokens; evaluation gives more than a short review has
    change = float((padded - bare).norm() / padded.norm())
    if change > PADDING_TOLERANCE:
        log.warning(
            f"the {model.config.model_type} encoder's output depends on the padding after a review (here it changes by "
            f"{100 * change:.0f}%): it does not use the attention mask throughout, and predictions depend on the "
            "longest review of their batch"
        )


def _positions(model: TextClassifier, ids: Tensor) -> str:
    """The likeliest reason of an error: fewer positions than tokens."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is None or positions > ids.shape[1] + 2:
        return ""
    return (
        f" with data.max_length: {ids.shape[1]} (its max_position_embeddings: {positions}; take a smaller max_length)"
    )


def _words(error: Exception) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}".removesuffix(": ")
