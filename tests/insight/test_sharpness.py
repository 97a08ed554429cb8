"""Sharpness and curvature: closed forms of a quadratic in float64, and dense Hessians of three architectures."""

import dataclasses

import numpy as np
import pytest
import torch
from encoders import random_reviews, tiny_encoder
from scipy.optimize import brentq
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from batchscope.data.tokens import Tokens
from batchscope.insight import loss_surface
from batchscope.insight.loss_surface import (
    LossSurface,
    count_of,
    drawn_examples,
    logit_size,
    normalised,
    pooled_features,
    twice_differentiable,
)
from batchscope.insight.sharpness import ascent_sharpness, average_sharpness, top_eigenvalues
from batchscope.model.classifier import TextClassifier

CPU = torch.device("cpu")


class Quadratic:
    """½ (w − c)ᵀ A (w − c)."""

    def __init__(self, matrix: Tensor, centre: Tensor, point: Tensor) -> None:
        self.matrix, self.centre, self.point = matrix, centre, point

    def loss(self, at: Tensor) -> float:
        return self.gradient(at)[0]

    def gradient(self, at: Tensor) -> tuple[float, Tensor]:
        slope = self.matrix @ (at - self.centre)
        return float((at - self.centre) @ slope / 2), slope

    def hessian_product(self, direction: Tensor) -> Tensor:
        return self.matrix @ direction


def quadratic(eigenvalues: np.ndarray, seed: int = 0) -> Quadratic:
    dice = np.random.default_rng(seed)
    size = len(eigenvalues)
    basis = np.linalg.qr(dice.normal(size=(size, size)))[0]
    matrix = torch.from_numpy(basis * eigenvalues @ basis.T)
    return Quadratic(matrix, *(torch.from_numpy(dice.normal(size=size)) for _ in range(2)))


def test_the_largest_eigenvalues_are_those_of_the_matrix() -> None:
    values = np.concatenate([np.linspace(-3, 1, 57), [4.0, 7.5, 9.0]])
    found = top_eigenvalues(quadratic(values), 3, 200)
    assert found.eigenvalues == pytest.approx([9.0, 7.5, 4.0], rel=1e-3)
    assert found.asked == 3 and 12 <= found.products <= 200


def test_eigenvalues_that_do_not_converge_are_left_out() -> None:
    """Three hundred eigenvalues at equal distances, and thirty products."""
    found = top_eigenvalues(quadratic(np.linspace(0, 1, 300)), 3, 30)
    assert len(found.eigenvalues) < 3 and found.products <= 33


def test_average_sharpness_is_half_the_trace_times_the_variance() -> None:
    surface = quadratic(np.linspace(0.5, 3, 40))
    found = average_sharpness(surface, noise=0.1, draws=300)
    exact = 0.1**2 * float(surface.matrix.trace()) / 2
    assert found.sharpness == pytest.approx(exact, rel=0.05)
    # Var(εᵀAε) = 2 ‖A‖² for standard normal ε.
    error = 0.1**2 / 2 * float(torch.linalg.matrix_norm(surface.matrix)) * np.sqrt(2 / 300)
    assert found.standard_error == pytest.approx(error, rel=0.2)
    assert abs(found.sharpness - exact) < 3 * error
    assert np.isnan(average_sharpness(surface, 0.1, 1).standard_error)


def test_one_step_goes_along_the_gradient() -> None:
    surface = quadratic(np.linspace(0.5, 3, 40))
    loss, slope = surface.gradient(surface.point)
    norm = float(slope.norm())
    curved = float(slope @ surface.matrix @ slope) / norm**2
    found = ascent_sharpness(surface, (loss, slope), radius=0.3, steps=1)
    assert found == pytest.approx(0.3 * norm + 0.3**2 * curved / 2)
    flat = Quadratic(surface.matrix, surface.point, surface.point)
    assert ascent_sharpness(flat, flat.gradient(flat.point), 0.3, 5) == 0


def test_adaptive_sharpness_rises_to_the_worst_case() -> None:
    """max of ½ uᵀBu + bᵀu over ‖u‖ = r is at (μI − B)u = b, with the μ above the eigenvalues for which ‖u‖ = r."""
    surface, radius = quadratic(np.linspace(0.5, 3, 12), seed=1), 0.4
    size = surface.point.abs()
    values, basis = np.linalg.eigh((size[:, None] * surface.matrix * size).numpy())
    slope = basis.T @ (size * surface.gradient(surface.point)[1]).numpy()
    mu = brentq(lambda m: np.linalg.norm(slope / (m - values)) - radius, values[-1] + 1e-9, 1e6, xtol=1e-12)
    u = slope / (mu - values)
    begin = surface.gradient(surface.point)
    rises = [ascent_sharpness(surface, begin, radius, steps, relative=True) for steps in (1, 2, 5, 200)]
    assert rises == sorted(rises)
    assert rises[-1] == pytest.approx(values @ u**2 / 2 + slope @ u, rel=1e-6)


class Product:
    """(w₁w₂ − 1)²: rescaling the two weights against each other changes nothing that the model computes."""

    def __init__(self, *weights: float) -> None:
        self.point = torch.tensor(weights, dtype=torch.float64)

    def loss(self, at: Tensor) -> float:
        return float((at[0] * at[1] - 1) ** 2)

    def gradient(self, at: Tensor) -> tuple[float, Tensor]:
        return self.loss(at), 2 * (at[0] * at[1] - 1) * at.flip(0)

    def hessian_product(self, direction: Tensor) -> Tensor:
        raise NotImplementedError


def test_adaptive_sharpness_does_not_see_a_rescaling_and_the_plain_one_does() -> None:
    one, other = Product(1.5, 0.8), Product(6.0, 0.2)
    adaptive, plain = (
        [ascent_sharpness(surface, surface.gradient(surface.point), 0.2, 3, relative) for surface in (one, other)]
        for relative in (True, False)
    )
    assert adaptive[0] == pytest.approx(adaptive[1]) and plain[0] < plain[1] / 2


# ------------------------------------------------------------------------------------------------------ real models


SMALL = {"hidden_size": 4, "intermediate_size": 4, "vocab_size": 12, "max_position_embeddings": 24}
# In float64, transformers' eager attention gives NaN to a padded query whose window holds padding alone; a window of 16
# is shorter than the longest review, and longer than any padding.
SIZES = {
    "bert": {**SMALL, "num_hidden_layers": 1, "type_vocab_size": 1},
    "modernbert": {**SMALL, "hidden_size": 8, "local_attention": 32},
    "distilbert": {"dim": 4, "hidden_dim": 4, "n_layers": 1, "vocab_size": 12, "max_position_embeddings": 24},
}


def few_reviews(count: int = 5) -> Tokens:
    """Random reviews over a dozen tokens."""
    tokens = random_reviews(count)
    ids = np.where(tokens.input_ids > 0, 5 + tokens.input_ids % 7, 0).astype(np.uint16)
    return dataclasses.replace(tokens, input_ids=ids)


def model_of(kind: str, classes: int = 2) -> TextClassifier:
    """A tiny float64 model whose weights are large enough to bend its loss."""
    model = TextClassifier(tiny_encoder(kind, **SIZES[kind]), classes=classes).double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def reference_loss(model: TextClassifier, tokens: Tokens, weights: Tensor) -> Tensor:
    """Mean loss, review by review without padding, as a function of the flat weights."""
    named, start = {}, 0
    for name, parameter in model.named_parameters():
        named[name] = weights[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()
    losses = []
    for row in range(len(tokens)):
        ids = torch.from_numpy(tokens.input_ids[row, : tokens.length[row]].astype(np.int64))[None]
        logits = functional_call(model, named, (ids, torch.ones_like(ids, dtype=torch.bool)))
        losses.append(cross_entropy(logits, torch.tensor([tokens.label[row]])))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("kind", SIZES)
def test_gradient_and_curvature_are_those_of_the_dense_hessian(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = model_of(kind), few_reviews()
    monkeypatch.setattr(loss_surface, "TOKENS_PER_BATCH", 32)
    examples = drawn_examples(tokens, 99, CPU)
    assert len(examples) > 1 and count_of(examples) == len(tokens)
    surface = LossSurface(model, examples)
    with twice_differentiable(model):
        slow = lambda weights: reference_loss(model, tokens, weights)  # noqa: E731
        dense = torch.autograd.functional.hessian(slow, surface.point, vectorize=True)
        slope = torch.autograd.functional.jacobian(slow, surface.point)
        loss, gradient = surface.gradient(surface.point)
        direction = torch.randn(len(surface.point), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        product = surface.hessian_product(direction)
        found = top_eigenvalues(surface, 2, 60)
    assert loss == pytest.approx(float(slow(surface.point)), rel=1e-6)
    assert surface.loss(surface.point) == pytest.approx(loss, rel=1e-6)
    assert torch.allclose(gradient, slope, rtol=1e-4, atol=1e-6)
    assert torch.allclose(product, dense @ direction, rtol=1e-4, atol=1e-5)
    values = np.linalg.eigvalsh(dense.numpy())
    assert found.eigenvalues == pytest.approx(values[::-1][:2].tolist(), rel=2e-3)
    assert values[-1] > 0.1, "the model bends"


def test_measuring_leaves_the_weights_and_the_attention_as_they_were() -> None:
    model = model_of("bert")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    implementation = model.config._attn_implementation
    surface = LossSurface(model, drawn_examples(few_reviews(), 99, CPU))
    surface.loss(surface.point + 1)
    with twice_differentiable(model):
        surface.hessian_product(surface.point)
    assert model.config._attn_implementation == implementation
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert surface.loss(surface.point) == pytest.approx(surface.gradient(surface.point)[0])


@pytest.mark.parametrize("classes", [2, 3])
def test_normalised_logits_do_not_see_the_size_of_the_head(classes: int) -> None:
    """Tripling the head makes every logit three times as large, and the loss another one."""
    losses, plain = [], []
    for factor in (1, 3):
        model = model_of("bert", classes)
        for parameter in model.head.parameters():
            parameter.data *= factor
        examples = drawn_examples(few_reviews(), 99, CPU)
        surface = LossSurface(model, examples, logit_size(model, examples))
        losses.append(surface.loss(surface.point))
        plain.append(LossSurface(model, examples).loss(surface.point))
    assert losses[0] == pytest.approx(losses[1]) and plain[0] != pytest.approx(plain[1])


def test_two_classes_keep_a_gradient_when_their_logits_are_normalised() -> None:
    """Each example by its own size would give ±1, whatever the weights: the paper's form for more classes."""
    logits = torch.tensor([[0.5, -0.5], [2.0, 1.0], [0.0, 3.0]], dtype=torch.float64)
    centred = logits - logits.mean(1, keepdim=True)
    own = centred / centred.square().mean(1, keepdim=True).sqrt()
    assert own.abs().allclose(torch.ones_like(own))
    assert torch.equal(normalised(logits, 2.0), logits / 2)
    three = normalised(torch.randn(4, 3, dtype=torch.float64), 9.0)
    assert three.square().mean(1).allclose(torch.ones(4, dtype=torch.float64))
    assert three.sum(1).abs().max() < 1e-9


def test_features_are_what_the_head_reads() -> None:
    model, examples = model_of("bert"), drawn_examples(few_reviews(), 99, CPU)
    features = pooled_features(model, examples)
    logits = torch.cat([model(batch.ids, batch.mask) for batch in examples]).detach().numpy()
    weight, bias = (parameter.detach().numpy() for parameter in (model.head.weight, model.head.bias))
    assert features @ weight.T + bias == pytest.approx(logits)


def test_examples_are_the_same_at_every_draw_and_all_of_a_small_split() -> None:
    tokens = few_reviews(9)
    labels = [torch.cat([batch.label for batch in drawn_examples(tokens, 6, CPU)]) for _ in range(2)]
    assert len(labels[0]) == 6 and torch.equal(*labels)
    assert count_of(drawn_examples(tokens, 99, CPU)) == 9
