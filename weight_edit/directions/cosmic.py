"""COSMIC: scores candidates by how well they turn one class's activations into the other's.

No refusal tokens are needed (arXiv 2506.00085).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.problem import Problem, streams_under
from weight_edit.directions.scores import Similarity, addable, addition, groups
from weight_edit.runtime.activations import residuals_under
from weight_edit.runtime.hooks import Hook
from weight_edit.runtime.points import Point
from weight_edit.runtime.variants import PLAIN, Variant
from weight_edit.utils.progress import bar

SHARE = 0.1
"""The share of the layers that is scored: those where the two classes are least alike."""


def cosmic_scores(
    problem: Problem,
    candidates: Sequence[Candidate],
    ablation_hooks: Callable[[Tensor], list[Hook]],
    *,
    done: Callable[[int, Similarity], None] = lambda number, similarity: None,
    before: int = 0,
) -> list[Similarity]:
    """The similarity score of each candidate (arXiv 2506.00085), from -2 to 2, high is good.

    With the means of the stream over validation prompts, at the inputs of the tenth of the layers (at least one) where
    those of target and baseline have the lowest cosine, the positions being one long vector:
    `cos(target with the directions ablated, baseline) + cos(baseline with the difference added, target)`, averaged over
    these layers. Where there is nothing to add, or no layer to add it at, the first cosine counts twice.

    Args:
        ablation_hooks: gives the hooks that ablate the span of rows (k, d_model) from the whole stream.
        done: is given every candidate's number and similarity as soon as they are measured.
        before: how many the bar counts as done.

    Returns:
        One per candidate; NaN for those of length zero.

    Raises:
        UsageError: a prompt is shorter than the positions reach back, or memory runs out.
    """

    def prepare() -> _Similarities:
        target, baseline = (
            problem.target("validation").double().mean(dim=0),
            problem.of(problem.baseline, "validation").double().mean(dim=0),
        )
        chosen = least_similar(target, baseline)
        looked_at = [problem.layers[index] for index in chosen]

        def like(prompts: Sequence[Sequence[int]], variants: Sequence[Variant], other: Tensor) -> list[float]:
            found = streams_under(
                problem.model, variants, prompts, looked_at, problem.positions, batch_size=problem.batch_size
            )
            return [float(similarity(each.double().mean(dim=0), other[:, chosen]).mean()) for each in found]

        return _Similarities(
            to_baseline=lambda prompts, variants: like(prompts, variants, baseline),
            to_target=lambda prompts, variants: like(prompts, variants, target),
        )

    return _scores(problem, candidates, ablation_hooks, prepare, done=done, before=before)


def released_scores(
    problem: Problem,
    candidates: Sequence[Candidate],
    ablation_hooks: Callable[[Tensor], list[Hook]],
    *,
    done: Callable[[int, Similarity], None] = lambda number, similarity: None,
    before: int = 0,
) -> list[Similarity]:
    """The similarity score of each candidate as the authors' code computes it (wang-research-lab/COSMIC).

    It differs from `cosmic_scores` in four ways: the stream is read at the outputs of blocks, the last of them behind
    the final norm, at the last token alone; the layers are the tenth where means of training prompts are least alike;
    and all prompts and layers make one mean, of which one cosine is taken, so that layers with a long stream count
    most. Where the model has fewer than ten blocks one layer is looked at; the code looks at none there.

    Args:
        ablation_hooks, done, before: as in `cosmic_scores`.

    Raises:
        UsageError: a prompt is too long, or memory runs out.
    """

    def prepare() -> _Similarities:
        trained = [
            outputs_under(problem, (PLAIN,), prompts, problem.layers)[0]
            for prompts in ([ids for sample in problem.targets for ids in sample.train], problem.baseline.train)
        ]
        looked_at = [problem.layers[index] for index in least_similar(*(x.mean(dim=0)[None] for x in trained))]

        def means(prompts: Sequence[Sequence[int]], variants: Sequence[Variant] = (PLAIN,)) -> Tensor:
            return outputs_under(problem, variants, prompts, looked_at).mean(dim=(1, 2))

        (target,) = means([ids for sample in problem.targets for ids in sample.validation])
        (baseline,) = means(problem.baseline.validation)

        def like(prompts: Sequence[Sequence[int]], variants: Sequence[Variant], other: Tensor) -> list[float]:
            found: list[float] = torch.nn.functional.cosine_similarity(means(prompts, variants), other, dim=-1).tolist()
            return found

        return _Similarities(
            to_baseline=lambda prompts, variants: like(prompts, variants, baseline),
            to_target=lambda prompts, variants: like(prompts, variants, target),
        )

    return _scores(problem, candidates, ablation_hooks, prepare, done=done, before=before)


def outputs_under(
    problem: Problem, variants: Sequence[Variant], prompts: Sequence[Sequence[int]], layers: Sequence[int]
) -> Tensor:
    """The outputs of blocks at the last token under each variant, (variants, prompts, layers, d_model) float64.

    The last block's is what the final norm makes of it.
    """
    model = problem.model
    points = [Point("resid_post", layer) for layer in layers]
    found = residuals_under(model, variants, prompts, points, [-1], batch_size=problem.batch_size, description=None)
    found = found[:, :, 0]
    last = model.anatomy.n_layers - 1
    if model.anatomy.final_norm is not None and last in layers:
        norm = model.model.get_submodule(model.anatomy.final_norm)
        some = next(norm.parameters(), None)
        where = list(layers).index(last)
        with torch.no_grad():
            given = found[..., where, :] if some is None else found[..., where, :].to(some.device, some.dtype)
            found[..., where, :] = norm(given).float().cpu()
    return found.double()


@dataclass(frozen=True)
class _Similarities:
    """Cosines of what prompts give under each variant to what the unedited model gives on each class."""

    to_baseline: Callable[[Sequence[Sequence[int]], Sequence[Variant]], list[float]]
    to_target: Callable[[Sequence[Sequence[int]], Sequence[Variant]], list[float]]


def _scores(
    problem: Problem,
    candidates: Sequence[Candidate],
    ablation_hooks: Callable[[Tensor], list[Hook]],
    prepare: Callable[[], _Similarities],
    *,
    done: Callable[[int, Similarity], None],
    before: int,
) -> list[Similarity]:
    asked = [n for n, candidate in enumerate(candidates) if candidate.norm > 0.0]
    found: dict[int, Similarity] = {}
    if asked:
        similarities = prepare()
        targets = [ids for sample in problem.targets for ids in sample.validation]
        baseline = problem.baseline.validation
        with bar("similarities", len(asked) + before, done=before) as progress:
            for group in groups(problem.model, asked, max(1, len(targets) + len(baseline))):
                ablated = [Variant(tuple(ablation_hooks(candidates[number].rows))) for number in group]
                cosines = dict(zip(group, similarities.to_baseline(targets, ablated), strict=True))
                able = [number for number in group if addable(candidates[number])]
                additions = [addition(problem.model, candidates[number]) for number in able]
                added = dict(zip(able, similarities.to_target(baseline, additions), strict=True)) if able else {}
                for number in group:
                    found[number] = Similarity(cosines[number], added.get(number, cosines[number]))
                    done(number, found[number])
                    progress.advance()
    return [found.get(number, Similarity()) for number in range(len(candidates))]


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
