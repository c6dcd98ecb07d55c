"""Least-squares concept erasure (LEACE): the eraser, its fit, and the finder."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import PlainValidator
from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.finders.mean_difference import mean_difference
from weight_edit.directions.problem import Problem
from weight_edit.directions.registry import finder
from weight_edit.utils.arrays import Floats, as_float64
from weight_edit.utils.settings import Section

Shrinkage = Literal["optimal"] | float

# Singular values of the whitened covariance with the labels: what is below is no relation. The library's figure.
_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Eraser:
    """The eraser `x -> x - left^T right (x - mean)`.

    `left right^T` is the identity, so `left^T right` is an oblique projection.

    Attributes:
        left: (k, d) float64, what is taken off, in the span of the covariances of the stream with the labels.
        right: (k, d) float64, what is read.
        mean: (d,) float64, of the data; it stays where it is.
        shrinkage: share of the covariance that was replaced by a multiple of the identity.
    """

    left: Floats
    right: Floats
    mean: Floats
    shrinkage: float = 0.0

    @property
    def P(self) -> Floats:
        """`I - left^T right`, (d, d)."""
        projection: Floats = np.eye(len(self.mean)) - self.left.T @ self.right
        return projection

    def __call__(self, x: Floats) -> Floats:
        """Erase from `x` (..., d)."""
        erased: Floats = x - ((x - self.mean) @ self.right.T) @ self.left
        return erased


class EraserFitter:
    """Running statistics of data and labels, from which the eraser is computed.

    Attributes:
        count: rows seen so far.
        mean_x, mean_z: their means, (d,), (k,).
        sum_xx, sum_xz: sums of products of what is left without the means, (d, d), (d, k).
    """

    def __init__(self, width: int, labels: int, *, shrinkage: Shrinkage = "optimal", ambient: int | None = None):
        """
        Args:
            width: d, of the data.
            labels: k, how many columns the labels have.
            shrinkage: share of the covariance that is replaced by a multiple of the identity of the same trace: 0 for
                none, 1 for all (an orthogonal projection), "optimal" for the asymptotically best of arXiv 1308.2608.
            ambient: dimension of the space that the data's coordinates are of; for shrinkage, `width` when None.
        """
        self.shrinkage: Shrinkage = shrinkage
        self.ambient = width if ambient is None else ambient
        self.count = 0
        self.mean_x, self.mean_z = np.zeros(width), np.zeros(labels)
        self.sum_xx, self.sum_xz = np.zeros((width, width)), np.zeros((width, labels))

    def update(self, x: Floats, z: Floats) -> "EraserFitter":
        """Add data (n, d) with labels (n, k), one column per concept to erase, of any scale."""
        seen, new = self.count, len(x)
        self.count += new
        shift_x, shift_z = x.mean(axis=0) - self.mean_x, z.mean(axis=0) - self.mean_z
        centred = x - x.mean(axis=0)
        weight = seen * new / self.count
        self.sum_xx += centred.T @ centred + weight * np.outer(shift_x, shift_x)
        self.sum_xz += centred.T @ (z - z.mean(axis=0)) + weight * np.outer(shift_x, shift_z)
        self.mean_x += shift_x * new / self.count
        self.mean_z += shift_z * new / self.count
        return self

    @property
    def eraser(self) -> Eraser:
        """The least-squares eraser of the statistics so far.

        It is `x - W^+ U U^T W (x - mean)`, with `W = Sxx^(-1/2)` and `U` an orthonormal basis of the range of `W Sxz`.

        Where there is nothing to erase, k is 0.
        """
        covariance = self.sum_xx / max(1, self.count - 1)
        share = self._share(covariance)
        level = np.trace(covariance) / self.ambient
        covariance = (1 - share) * covariance + share * level * np.eye(len(covariance))
        values, vectors = np.linalg.eigh(covariance)
        # Below this an eigenvalue is rounding error; the pseudo-inverse leaves it out.
        large = values > values.max(initial=0.0) * self.ambient * np.finfo(float).eps
        values, vectors = values[large], vectors[:, large]
        whitened = (vectors / np.sqrt(values)).T @ (self.sum_xz / max(1, self.count - 1))
        u, strengths, _ = np.linalg.svd(whitened, full_matrices=False)
        u = u[:, strengths > _TOLERANCE]
        return Eraser((vectors * np.sqrt(values) @ u).T, (vectors / np.sqrt(values) @ u).T, self.mean_x.copy(), share)

    def _share(self, covariance: Floats) -> float:
        """The shrinkage intensity; "optimal" is the one towards a multiple of the identity."""
        if self.shrinkage != "optimal":
            return float(self.shrinkage)
        square = float(np.trace(covariance)) ** 2
        spread = float((covariance**2).sum()) - square / self.ambient
        return 1.0 if spread <= 0 else min(1.0, square / self.count / spread)


def fitted_eraser(x: Floats, z: Floats, *, shrinkage: Shrinkage = "optimal") -> Eraser:
    """The eraser of `x` (n, d) with labels `z` (n, k).

    With fewer rows than columns it is computed in the span of the rows without their mean. The result is the same:
    elsewhere whitening is a multiple of the identity, and the covariance with the labels lies within.
    """
    if len(x) > x.shape[1]:
        return EraserFitter(x.shape[1], z.shape[1], shrinkage=shrinkage).update(x, z).eraser
    mean = x.mean(axis=0)
    _, scales, basis = np.linalg.svd(x - mean, full_matrices=False)
    basis = basis[scales > scales[0] * np.finfo(float).eps * len(mean)]
    fitter = EraserFitter(len(basis), z.shape[1], shrinkage=shrinkage, ambient=len(mean))
    inner = fitter.update((x - mean) @ basis.T, z).eraser
    return Eraser(inner.left @ basis, inner.right @ basis, mean, inner.shrinkage)


def _optimal_or_share(value: object) -> object:
    if value == "optimal" or (isinstance(value, int | float) and 0 <= value <= 1):
        return value
    raise ValueError("give optimal, or a share from 0 to 1")


class LeaceOptions(Section):
    """Settings of the eraser.

    Attributes:
        shrinkage: share of the stream's covariance that is replaced by a multiple of the identity of the same trace: 0
            for none, 1 for all; "optimal" for what suits the number of prompts (arXiv 1308.2608). Whatever it is,
            nothing linear is left in the training prompts, and the same span is taken off; it decides by how much, and
            with few prompts keeps the eraser from reading their noise.
    """

    shrinkage: Annotated[float | Literal["optimal"], PlainValidator(_optimal_or_share)] = "optimal"


@finder("leace", paper="2306.03819", everywhere=True)
def leace_directions(problem: Problem, options: LeaceOptions) -> list[Candidate]:
    """Least-squares concept erasure (LEACE): the smallest change that leaves nothing linear to read.

    The eraser is in the tensors: `x -> x - sum_i left_i (right_i . (x - mean))`, with a pair for each target set. Rows
    are `left`, what it takes off: without their span no linear reader is left either, so that an ablation of them is
    the orthogonal counterpart of the eraser. With one target set that is the mean difference. (What the eraser reads,
    `right`, is no direction to ablate: the rest of the stream still tells the same.)

    Raises:
        UsageError: a prompt is shorter than the positions reach back, or memory runs out.
    """
    problem.check_enough("leace")
    samples = [problem.baseline, *problem.targets]
    streams = [problem.of(sample) for sample in samples]
    held = [problem.of(sample, "validation") for sample in samples] if all(s.validation for s in samples) else []
    x, z = torch.cat(streams), np.repeat(np.eye(len(samples))[:, 1:], [len(some) for some in streams], axis=0)
    means = torch.stack([some.double().mean(dim=0) for some in streams])
    differences = mean_difference(problem.target().double().mean(dim=0), means[0])
    # Where all means are alike up to rounding (a template's token before any block) there is nothing to erase.
    different = (mean_difference(means[1:], means[0]) != 0).any(dim=0).any(dim=-1) & means.isfinite().all(0).all(-1)
    candidates = []
    for p, layer in problem.places:
        difference = differences[p, layer]
        position, block = problem.positions[p], problem.layers[layer]
        eraser = None
        if different[p, layer]:
            eraser = fitted_eraser(as_float64(x[:, p, layer]), z, shrinkage=options.shrinkage)
        if eraser is None or not len(eraser.left):
            nothing = torch.zeros_like(difference)[None]
            candidates.append(Candidate(position=position, layer=block, rows=nothing, vector=difference))
            continue
        left, right, mean = (torch.from_numpy(part) for part in (eraser.left, eraser.right, eraser.mean))
        facts = {"shrinkage": eraser.shrinkage}
        if held:
            facts["held_out_difference"] = _remaining(eraser, [some[:, p, layer] for some in held])
        tensors = {"left": left, "right": right, "mean": mean}
        candidates.append(
            Candidate(position=position, layer=block, rows=left, vector=difference, tensors=tensors, facts=facts)
        )
    return candidates


def _remaining(eraser: Eraser, classes: list[Tensor]) -> float:
    """The share of the class means' distances left after erasure, on held-out prompts."""
    means = [as_float64(some).mean(axis=0) for some in classes]
    before = sum(float(np.linalg.norm(mean - means[0])) for mean in means)
    after = sum(float(np.linalg.norm(eraser(mean) - eraser(means[0]))) for mean in means)
    return after / before if before else 0.0
