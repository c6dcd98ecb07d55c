"""Principal components: of paired differences, or of both classes together."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.finders.mean_difference import mean_difference
from weight_edit.directions.problem import Problem
from weight_edit.directions.registry import finder
from weight_edit.utils.settings import Section

# Singular values below this share of the activations' own are rounding errors of float32.
_ROUNDING = 1e-6


class PcaOptions(Section):
    """Settings of the principal components.

    Attributes:
        of: "paired": of the differences between each target prompt and a baseline prompt, as in representation
            engineering; "pooled": of the prompts of both classes around their common mean.
        components: how many are kept, where there are so many.
        order: by "variance", or by "separation", the distance between the class means along a component. None stands
            for the variance of differences, as in the paper, and for separation of pooled prompts, whose largest
            variance is often one of topic or length.
    """

    of: Literal["paired", "pooled"] = "paired"
    components: Annotated[int, Field(ge=1)] = 1
    order: Literal["variance", "separation"] | None = None


@finder("pca", paper="2310.01405", everywhere=True)
def principal_components(problem: Problem, options: PcaOptions) -> list[Candidate]:
    """Principal components of paired differences (representation engineering) or all prompts.

    Rows are of unit length, and point to where the target's mean is further along. What an addition adds is the part of
    the mean difference that lies in their span, so that its length is that of a class's shift along them. Prompts are
    paired in their order; where there are more of one class, some are drawn of it by the seed.

    Raises:
        UsageError: a prompt is shorter than the positions reach back, or memory runs out.
    """
    problem.check_enough("pca")
    target, baseline = problem.target(), problem.of(problem.baseline)
    differences = mean_difference(target.double().mean(dim=0), baseline.double().mean(dim=0))
    first, second = paired(len(target), len(baseline), problem.seed)
    by_separation = (options.order or ("variance" if options.of == "paired" else "separation")) == "separation"
    candidates = []
    for p, layer in problem.places:
        position, block, difference = problem.positions[p], problem.layers[layer], differences[p, layer]
        if not difference.any():
            nothing = torch.zeros_like(difference)[None]
            candidates.append(Candidate(position=position, layer=block, rows=nothing, vector=difference))
            continue
        x, y = target[:, p, layer].double(), baseline[:, p, layer].double()
        together = torch.cat([x, y])
        data = x[first] - y[second] if options.of == "paired" else together - together.mean(dim=0)
        rows, shares = components(data, float(together.norm()))
        if by_separation:
            order = torch.argsort((rows @ difference).abs(), descending=True, stable=True)
            rows, shares = rows[order], shares[order]
        rows, shares = towards(rows[: options.components], difference), shares[: options.components]
        vector = rows.T @ (rows @ difference)
        facts = {
            "explained_variance_ratio": shares.tolist(),
            "share_of_difference": float(vector.norm() / difference.norm()),
        }
        candidates.append(Candidate(position=position, layer=block, rows=rows, vector=vector, facts=facts))
    return candidates


def components(data: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The uncentred principal components of `data` (n, d_model), with shares of the squares.

    Nothing is centred here. Differences of pairs are not to be: their mean is what is sought. (The paper draws the
    sign of each pair at random and then centres; this is what that comes to on average.)

    Args:
        scale: length of what the data was computed from; what is very small against it is rounding error.
    """
    _, values, rows = torch.linalg.svd(data, full_matrices=False)
    real = values > _ROUNDING * scale
    squares = values**2
    return rows[real], squares[real] / squares.sum().clamp_min(torch.finfo(squares.dtype).tiny)


def towards(rows: Tensor, difference: Tensor) -> Tensor:
    """Rows (k, d_model), each with the sign that makes its product with `difference` positive.

    One at a right angle to it gets a positive largest entry, so that the sign is always the same.
    """
    along = rows @ difference
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))[:, 0]
    doubtful = along.abs() <= _ROUNDING * difference.norm()
    return rows * torch.where(doubtful, largest, along).sign()[:, None]


def paired(target: int, baseline: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the prompts of each pair; as many pairs as prompts in the smaller class."""
    count = min(target, baseline)
    generator = torch.Generator().manual_seed(seed)

    def drawn(size: int) -> Tensor:
        return torch.arange(size) if size == count else torch.randperm(size, generator=generator)[:count]

    return drawn(target), drawn(baseline)
