"""How sharp a minimum is: the rise of the loss around it, on average and at worst, and the largest curvatures."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from batchscope.insight.loss_surface import Surface

TOLERANCE = 1e-3
"""Relative accuracy of an eigenvalue that counts as converged."""
BASIS_BEYOND = 6
"""Lanczos vectors in memory: twice the wanted eigenvalues and so many more."""


class Average(NamedTuple):
    """Mean rise of the loss under noise, and its standard error over the draws (NaN for one)."""

    sharpness: float
    standard_error: float


class Spectrum(NamedTuple):
    """The largest eigenvalues of a Hessian."""

    eigenvalues: list[float]
    """Those that converged, the largest first."""
    asked: int
    products: int
    """Hessian-vector products that were used."""


def average_sharpness(surface: Surface, noise: float, draws: int) -> Average:
    """E L(w + ε) − L(w) for ε ~ N(0, noise² I): ``noise``² / 2 · trace of the Hessian, where the loss is quadratic.

    Each draw is used with both signs, so that the gradient, which is odd, adds no scatter. The draws are the same for
    every model with as many weights, on every device.
    """
    point = surface.point
    start, rises = surface.loss(point), []
    for draw in range(draws):
        generator = torch.Generator().manual_seed(draw)
        step = noise * torch.randn(len(point), generator=generator, dtype=point.dtype).to(point.device)
        rises.append((surface.loss(point + step) + surface.loss(point - step)) / 2 - start)
    error = float(np.std(rises, ddof=1) / np.sqrt(draws)) if draws > 1 else float("nan")
    return Average(float(np.mean(rises)), error)


def ascent_sharpness(
    surface: Surface, begin: tuple[float, Tensor], radius: float, steps: int, relative: bool = False
) -> float:
    """The rise of the loss to the highest of ``steps`` points at distance ``radius``, reached along the gradient.

    ``begin`` is loss and gradient at the point. Each step goes to ε = radius · T²g / ‖Tg‖, the point of the ball
    ‖T⁻¹ε‖ ≤ radius where the loss would be highest if it were linear with the gradient g of the step before. T is 1,
    and one step is that of SAM (Foret et al. 2021, arXiv 2010.01412); or ``relative``, T = diag(|w|), which makes it
    adaptive sharpness, and the first step that of ASAM (Kwon et al. 2021, arXiv 2102.11600). For a convex loss no step
    goes down (Frank and Wolfe 1956). 0 where the gradient is 0.
    """
    point = surface.point
    size = point.abs() if relative else torch.ones_like(point)
    start, gradient = begin
    highest = None
    for step in range(steps):
        scaled = size * gradient
        norm = scaled.norm()
        if not norm > 0:
            break
        reached = point + radius * size * scaled / norm
        if step == steps - 1:
            loss = surface.loss(reached)
        else:
            loss, gradient = surface.gradient(reached)
        highest = loss if highest is None else max(highest, loss)
    return 0.0 if highest is None else highest - start


def top_eigenvalues(surface: Surface, count: int, most_products: int) -> Spectrum:
    """The ``count`` largest eigenvalues of the Hessian by implicitly restarted Lanczos (ARPACK), matrix-free.

    Stops after about ``most_products`` products, but not before the first restart, with those eigenvalues that
    converged by then to a relative ``TOLERANCE``.
    """
    point, products = surface.point, 0
    size = len(point)
    basis = min(size, 2 * count + BASIS_BEYOND)

    def product(vector: NDArray[np.floating]) -> NDArray[np.floating]:
        nonlocal products
        products += 1
        direction = torch.from_numpy(np.ascontiguousarray(vector).reshape(-1)).to(point)
        found: NDArray[np.floating] = surface.hessian_product(direction).cpu().numpy()
        return found

    kind = point.cpu().numpy().dtype
    start = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=point.dtype).numpy()
    operator = LinearOperator((size, size), matvec=product, dtype=kind)
    restarts = max(1, (most_products - basis) // max(1, basis - count))
    try:
        values = eigsh(
            operator,
            count,
            which="LA",
            v0=start,
            ncv=basis,
            maxiter=restarts,
            tol=TOLERANCE,
            return_eigenvectors=False,
        )
    except ArpackNoConvergence as error:
        values = error.eigenvalues
    return Spectrum(sorted((float(value) for value in values), reverse=True), count, products)
