"""COSMIC: scores candidates by how well they turn one class's activations into the other's.

No refusal tokens are needed (arXiv 2506.00085).
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.problem import Problem, stream_at
from weight_edit.directions.scores import worth_scoring
from weight_edit.runtime.hooks import Hook, addition_hook, hooked
from weight_edit.utils.progress import bar

SHARE = 0.1
"""The share of the layers that is scored: those where the two classes are least alike."""


def cosmic_scores(
    problem: Problem,
    candidates: Sequence[Candidate],
    ablation_hooks: Callable[[Tensor], list[Hook]],
    *,
    layers: int | None = None,
    known: Mapping[int, float] | None = None,
    done: Callable[[int, float], None] | None = None,
) -> list[float]:
    """The similarity score of each candidate (arXiv 2506.00085), from -2 to 2, high is good.

    With the means of the stream over validation prompts, at the inputs of the tenth of the layers (at least one) where
    those of target and baseline have the lowest cosine, the positions being one long vector:
    `cos(target with the directions ablated, baseline) + cos(baseline with the difference added, target)`, averaged over
    these layers. Where there is nothing to add, or no layer to add it at, the first cosine counts twice.

    Args:
        ablation_hooks: gives the hooks that ablate the span of rows (k, d_model) from the whole stream.
        layers, known, done: as in `score_candidates`.

    Returns:
        One per candidate; NaN for those of length zero.

    Raises:
        UsageError: a prompt is shorter than the positions reach back, or memory runs out.
    """
    earlier = {} if known is None else dict(known)
    below = len(problem.layers) if layers is None else layers
    asked = [n for n, candidate in enumerate(candidates) if worth_scoring(candidate, below) and n not in earlier]
    if not asked:
        return [earlier.get(number, math.nan) for number in range(len(candidates))]
    target, baseline = (
        problem.target("validation").double().mean(dim=0),
        problem.of(problem.baseline, "validation").double().mean(dim=0),
    )
    chosen = least_similar(target, baseline)
    looked_at = [problem.layers[index] for index in chosen]
    targets = [ids for sample in problem.targets for ids in sample.validation]

    def under(hooks: list[Hook], prompts: Sequence[Sequence[int]], like: Tensor) -> float:
        with hooked(problem.model.model, hooks):
            found = stream_at(problem.model, prompts, looked_at, problem.positions, batch_size=problem.batch_size)
        return float(similarity(found.double().mean(dim=0), like[:, chosen]).mean())

    with bar("similarities", len(asked) + len(earlier), done=len(earlier)) as progress:
        for number in asked:
            candidate = candidates[number]
            score = ablated = under(ablation_hooks(candidate.rows), targets, baseline)
            if candidate.layer is None or candidate.vector is None:
                score += ablated
            else:
                added = addition_hook(problem.model, candidate.layer, candidate.vector.float())
                score += under([added], problem.baseline.validation, target)
            earlier[number] = score
            if done is not None:
                done(number, score)
            progress.advance()
    return [earlier.get(number, math.nan) for number in range(len(candidates))]


def least_similar(target: Tensor, baseline: Tensor) -> list[int]:
    """The tenth of the layers where two means have the lowest cosine, as indices.

    At least one, in the order of layers.
    """
    values = similarity(target, baseline)
    count = max(1, int(SHARE * len(values)))
    return sorted(values.argsort(stable=True)[:count].tolist())


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """The cosine of two means (positions, layers, d_model) at each layer, (layers,).

    All positions of a layer make one vector.
    """
    one, other = (x.transpose(0, 1).flatten(start_dim=1) for x in (a, b))
    return torch.nn.functional.cosine_similarity(one, other, dim=-1)
