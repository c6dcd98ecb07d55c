"""Races of random edits against scoring them all on all prompts: what is saved, and what of the front is lost.

    python benchmarks/search_race.py [MODEL] [--candidates N] [--first N ...] [--seeds N]

MODEL is one of the embedded models. Candidates are flat strengths, kernels and random strengths along the mean
difference at each layer's input, all scored on all prompts once; races are run on these scores, each seed with another
order of prompts. Told are, by the prompts of the first rung and with and without over-refusal: the share of the tokens
that is read, how many of the front's points are lost, and the hypervolume of those that end over the whole one.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from weight_edit import load, load_prompts
from weight_edit.directions.judged_answers import Speaker
from weight_edit.directions.problem import stream_at
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.evaluation.registry import JudgeSpec
from weight_edit.prompts.chat import ChatFormat
from weight_edit.runtime.loading import Model
from weight_edit.search.front import FrontPoint, front, hypervolume
from weight_edit.search.own_texts import SearchPrompts, made_texts
from weight_edit.search.point import Point
from weight_edit.search.race import race
from weight_edit.search.score import Score, Scorer
from weight_edit.search.strengths import Strengths
from weight_edit.search.texts import Texts


@dataclass(frozen=True)
class Recorded:
    """A scorer that looks scores up."""

    known: dict[str, Score]
    texts: Texts
    tokens: int

    def scores(
        self,
        points: Sequence[Point],
        *,
        refused: Sequence[int] | None = None,
        ordinary: Sequence[int] | None = None,
        over_refused: Sequence[int] | None = None,
        description: str | None = None,
    ) -> list[Score]:
        """The scores of points on prompts by number."""
        assert refused is not None
        assert ordinary is not None
        assert over_refused is not None
        found = [self.known[point.digest] for point in points]
        return [
            Score(
                ratios=each.ratios[list(refused)],
                kl=each.kl[list(ordinary)],
                over_ratios=each.over_ratios[list(over_refused)],
            )
            for each in found
        ]


def direction(model: Model, chat: ChatFormat, layer: int) -> np.ndarray:
    """The difference of the means of 48 refused and 48 answered prompts at a layer's input and the last token."""
    means = []
    for kind in ("refused", "answered"):
        prompts = [chat.encode(prompt) for prompt in load_prompts(f"organism:{kind}:train").take(48).prompts]
        means.append(stream_at(model, prompts, [layer], [-1]).double().mean(dim=0).reshape(-1))
    return orthonormal_rows((means[0] - means[1])[None]).astype(np.float32)


def kernel(n_layers: int, generator: random.Random) -> list[float]:
    """Strengths that fall off linearly from a layer, by layer."""
    top, at, least = generator.uniform(0.2, 1.9), generator.uniform(0, n_layers - 1), generator.random()
    width = generator.uniform(1, n_layers)
    return [
        0.0 if abs(layer - at) > width else top * (1 + abs(layer - at) / width * (least - 1))
        for layer in range(n_layers)
    ]


def candidates(rows: np.ndarray, n_layers: int, count: int) -> list[Point]:
    """The full ablation, then flat strengths, kernels and random ones in turn."""
    generator = random.Random(0)
    found = [Strengths.flat(n_layers)]
    while len(found) < count:
        if len(found) % 4 == 0:
            found.append(Strengths.flat(n_layers, generator.uniform(0, 1.3)))
        elif len(found) % 4 == 2:
            drawn = [generator.uniform(0, 1.5) for _ in range(2 * n_layers + 1)]
            found.append(Strengths.from_vector(drawn))
        else:
            embedding = generator.choice([0.0, generator.random()])
            found.append(Strengths(embedding, tuple(kernel(n_layers, generator)), tuple(kernel(n_layers, generator))))
    return [Point(rows=rows, strengths=each) for each in found]


def place(digest: str, score: Score) -> FrontPoint:
    """A point by its score."""
    return FrontPoint(digest=digest, refusal=score.refusal, damage=score.damage, over_refusal=score.over_refusal)


def told(recorded: Recorded, points: Sequence[Point], firsts: Sequence[int], seeds: int) -> None:
    """Print what races of these points save and lose."""
    whole = front([place(digest, score) for digest, score in recorded.known.items()])
    most = max(map(len, (recorded.texts.refused, recorded.texts.ordinary, recorded.texts.over_refused)))
    everything = race(recorded, points, first=most).rungs[0].tokens
    print(f"  objectives {len(whole[0].objectives)}: a front of {len(whole)} of {len(points)} points")
    for first in firsts:
        cost, lost, kept, ended = [], [], [], []
        for seed in range(seeds):
            found = race(recorded, points, first=first, seed=seed)
            cost.append(sum(rung.tokens for rung in found.rungs) / everything)
            lost.append(sum(each.digest not in found.scores for each in whole))
            kept.append(hypervolume([place(*each) for each in found.scores.items()]) / hypervolume(whole))
            ended.append(len(found.scores))
        print(
            f"    first {first:3}: tokens {np.mean(cost):.3f}, ended {np.mean(ended):.1f}, front points lost "
            f"{np.mean(lost):.2f}, hypervolume {np.mean(kept):.4f} (least {min(kept):.4f})"
        )


def main() -> int:
    """Print the figures of one model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="organism")
    parser.add_argument("--layer", type=int, default=3, help="at whose input the mean difference is taken")
    parser.add_argument("--candidates", type=int, default=80)
    parser.add_argument("--first", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--seeds", type=int, default=20)
    given = parser.parse_args()
    model = load(given.model, dtype="float32")
    chat, n_layers = ChatFormat(model.tokenizer), model.anatomy.n_layers
    points = candidates(direction(model, chat, given.layer), n_layers, given.candidates)
    sets = [load_prompts(f"organism:{kind}:train") for kind in ("refused", "answered", "over-refused")]
    texts = made_texts(
        Speaker(model=model, chat=chat, judge=JudgeSpec.parse("phrases,language=en"), max_new_tokens=96),
        SearchPrompts(refused=sets[0], ordinary=sets[1], over_refused=sets[2]),
        points[0],
        known_answers=True,
    ).training
    scorer = Scorer(model, texts)
    known = {point.digest: score for point, score in zip(points, scorer.scores(points), strict=True)}
    print(f"{given.model}, {len(texts.refused)} refused prompts, {len(texts.ordinary)} ordinary ones")
    told(Recorded(known, texts, scorer.tokens), points, given.first, given.seeds)
    without = {digest: replace(score, over_ratios=np.zeros(0)) for digest, score in known.items()}
    told(Recorded(without, replace(texts, over_refused=()), scorer.tokens), points, given.first, given.seeds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
