"""The training loss of a classifier as a function of its weights: values, gradients, Hessian-vector products.

Dropout is off, the arithmetic is that of the weights (float32 in a study), and the sums over examples are float64.
Only one batch of examples is in the memory of a forward or backward pass.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from batchscope.data.tokens import Tokens
from batchscope.model.classifier import TextClassifier, masked_mean

TOKENS_PER_BATCH = 2048
WIDTH_STEP = 16
DRAW_SEED = 0
SMALLEST = 1e-10
"""Least size of logits that they are divided by."""


class Surface(Protocol):
    """A loss around a point. Points and directions are flat, ``[P]``."""

    @property
    def point(self) -> Tensor:
        """Where the loss is examined."""

    def loss(self, at: Tensor) -> float:
        """The loss at a point."""

    def gradient(self, at: Tensor) -> tuple[float, Tensor]:
        """Loss and gradient ``[P]`` at a point."""

    def hessian_product(self, direction: Tensor) -> Tensor:
        """The Hessian at ``point`` times a direction ``[P]``."""


class ExampleBatch(NamedTuple):
    """B examples of similar length."""

    ids: Tensor
    """int64 ``[B, L]``."""
    mask: Tensor
    """bool ``[B, L]``, False on padding."""
    label: Tensor
    """int64 ``[B]``."""


def drawn_examples(tokens: Tokens, wanted: int, device: torch.device) -> list[ExampleBatch]:
    """``wanted`` examples, or all if there are no more: drawn once and for all, so the same for every run."""
    chosen = np.random.default_rng(DRAW_SEED).permutation(len(tokens))[:wanted]
    rows = chosen[np.argsort(tokens.length[chosen], kind="stable")]
    found, start = [], 0
    while start < len(rows):
        part = rows[start : start + _fitting(tokens.length[rows[start:]])]
        width = min(_rounded(int(tokens.length[part].max())), tokens.input_ids.shape[1])
        length = torch.from_numpy(tokens.length[part].astype(np.int64))
        found.append(
            ExampleBatch(
                torch.from_numpy(tokens.input_ids[part, :width].astype(np.int64)).to(device),
                (torch.arange(width) < length[:, None]).to(device),
                torch.from_numpy(tokens.label[part].astype(np.int64)).to(device),
            )
        )
        start += len(part)
    return found


def _fitting(lengths: NDArray[np.int32]) -> int:
    """How many of the first examples, by ascending length, fit into a batch."""
    widths = np.array([_rounded(int(length)) for length in lengths[: TOKENS_PER_BATCH // WIDTH_STEP]])
    fits = widths * np.arange(1, len(widths) + 1) <= TOKENS_PER_BATCH
    return max(1, int(fits.sum()))


def _rounded(width: int) -> int:
    return -(-width // WIDTH_STEP) * WIDTH_STEP


def count_of(examples: list[ExampleBatch]) -> int:
    """Number of examples."""
    return sum(len(batch.label) for batch in examples)


def trained(model: TextClassifier) -> list[Parameter]:
    """The weights that training moves: some encoders keep a table of positions as a fixed parameter.

    The row of a padding token is among them; its gradient is 0 for PyTorch, whatever the encoder makes of it.
    """
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def weights_of(model: TextClassifier) -> Tensor:
    """All trained weights as one flat tensor ``[P]``, a copy."""
    return parameters_to_vector(trained(model)).detach().clone()


class LossSurface:
    """Mean cross entropy of a classifier over fixed examples, around its weights.

    With ``logit_size`` the loss is that of normalised logits: see ``normalised``.
    """

    def __init__(self, model: TextClassifier, examples: list[ExampleBatch], logit_size: float | None = None) -> None:
        self.model = model.eval()
        self.examples = examples
        self.logit_size = logit_size
        self.point = weights_of(model)
        self.count = count_of(examples)

    def loss(self, at: Tensor) -> float:
        """Mean loss at weights ``[P]``."""
        with self._placed(at), torch.no_grad():
            return sum(float(self._losses(batch).detach().cpu().double().sum()) for batch in self.examples) / self.count

    def gradient(self, at: Tensor) -> tuple[float, Tensor]:
        """Mean loss and its gradient ``[P]`` at weights ``[P]``."""
        total, sums = 0.0, torch.zeros_like(self.point)
        with self._placed(at):
            parameters = trained(self.model)
            for batch in self.examples:
                losses = self._losses(batch)
                sums += _flat(torch.autograd.grad(losses.sum(), parameters, materialize_grads=True))
                total += float(losses.detach().cpu().double().sum())
        return total / self.count, sums / self.count

    def hessian_product(self, direction: Tensor) -> Tensor:
        """The Hessian of the mean loss times ``direction`` ``[P]``: the gradient of the directional derivative.

        Pearlmutter 1994, "Fast exact multiplication by the Hessian". It needs attention that has a second derivative.
        """
        parameters = trained(self.model)
        sums = torch.zeros_like(self.point)
        for batch in self.examples:
            first = torch.autograd.grad(
                self._losses(batch).sum(), parameters, create_graph=True, materialize_grads=True
            )
            slope = _flat(first) @ direction
            sums += _flat(torch.autograd.grad(slope, parameters, materialize_grads=True))
        return sums / self.count

    def correct(self) -> int:
        """Examples that the model labels correctly."""
        with torch.no_grad():
            return sum(
                int((self.model(batch.ids, batch.mask).argmax(1) == batch.label).sum()) for batch in self.examples
            )

    def _losses(self, batch: ExampleBatch) -> Tensor:
        logits = self.model(batch.ids, batch.mask)
        if self.logit_size is not None:
            logits = normalised(logits, self.logit_size)
        return cross_entropy(logits, batch.label, reduction="none")

    @contextmanager
    def _placed(self, at: Tensor) -> Iterator[None]:
        """The model at other weights while the context lasts."""
        vector_to_parameters(at, trained(self.model))
        try:
            yield
        finally:
            vector_to_parameters(self.point, trained(self.model))


def normalised(logits: Tensor, size: float) -> Tensor:
    """Logits ``[B, C]`` without their size, which grows with the training and makes every loss look sharp or flat.

    Andriushchenko et al. 2023 (arXiv 2302.07011) divide each example's logits by the root mean square of its centred
    logits. Of two classes that leaves ±1 whatever the model, and a loss without a gradient. There ``size``, of
    ``logit_size``, divides the logits of all examples.
    """
    if logits.shape[1] == 2:
        return logits / max(size, SMALLEST)
    centred = logits - logits.mean(1, keepdim=True)
    return centred / centred.square().mean(1, keepdim=True).clamp(min=SMALLEST**2).sqrt()


@torch.no_grad()
def logit_size(model: TextClassifier, examples: list[ExampleBatch]) -> float:
    """Root mean square of the centred logits over all examples and classes."""
    squares, numbers = 0.0, 0
    for batch in examples:
        logits = model.eval()(batch.ids, batch.mask).cpu().double()
        squares += float((logits - logits.mean(1, keepdim=True)).square().sum())
        numbers += logits.numel()
    return float(np.sqrt(squares / numbers))


@torch.no_grad()
def pooled_features(model: TextClassifier, examples: list[ExampleBatch]) -> NDArray[np.float64]:
    """What the linear head reads of every example, ``[N, H]``: the masked mean of the last hidden states."""
    parts = [
        masked_mean(model.eval().hidden_states(batch.ids, batch.mask), batch.mask).cpu().double() for batch in examples
    ]
    return torch.cat(parts).numpy()


@contextmanager
def twice_differentiable(model: TextClassifier) -> Iterator[None]:
    """Eager attention while the context lasts: the backward pass of the fused kernels has no derivative."""
    implementation = model.encoder.config._attn_implementation
    model.encoder.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.encoder.set_attn_implementation(implementation)


def _flat(parts: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])
