"""What a trial of the search costs beside generating, and how well it ranks: the cheap score against judged answers.

    python benchmarks/search_trial.py MODEL [--prompts DIR --direction FILE] [--limit N] [--candidates N] [--timed N]
        [--tokens N ...] [--near FILE] [--out FILE]

Candidates are ablations of one direction: at full and lesser strength everywhere, over kernels, and with random
strengths for each writer; with `--near`, strengths of a found edit (a point as JSON) scaled and jittered. Each answers
the same refused and ordinary prompts with up to 100 tokens by `generate` (continuous batching, until an end token), and
its refusals are judged by the default judge at 64 and 100 tokens. Beside this stand, on the same prompts:

- exact: prompt and texts are read under the edit, each prompt once;
- own N: the prompts but for their last N tokens were read once by the plain model, for all candidates;
- before: the same by `answers_under`, each text with its prompt;
- fixed lists: the published surrogate, made here: 8 tokens of the base's own refusal, teacher-forced,
  sum P(refusal) / (sum P(refusal) + sum P(compliance)) over 9 positions by two lists of English words, and
  J = KL + lambda max(0, soft - max(target, floor + .03))^2 with lambda 10, target .05, floor the least soft of all.

Costs are processor seconds of one candidate, medians of `--timed` candidates, the ways in turn; scores are asked of
four candidates in a request, as a search asks. Tau is Kendall's, with intervals over candidates. No prompt and no
answer is printed.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weight_edit import find_directions, load_directions, load_prompts
from weight_edit.directions.selection import SelectionRule
from weight_edit.edits.kernel import Kernel, Kernels
from weight_edit.evaluation.registry import DEFAULT_JUDGES, JudgeSpec
from weight_edit.evaluation.replies import spoken_of
from weight_edit.prompts.chat import ChatFormat
from weight_edit.runtime.continuations import Branch, ReadPrompts, continuations_under, read_before, text_logprobs
from weight_edit.runtime.forward import answers_under, token_logprobs
from weight_edit.runtime.generation import Generation, generate
from weight_edit.runtime.hooks import hooked
from weight_edit.runtime.loading import Model, load
from weight_edit.search.point import Point
from weight_edit.search.ranking import kendall
from weight_edit.search.score import divergence
from weight_edit.search.strengths import LARGEST, Strengths
from weight_edit.utils.progress import set_quiet

REFUSAL = ("I", "Sorry", "As", "Unfortunately", "No", "cannot", "can't", "unable", "sorry", "apologize", "not", "won't")
COMPLIANCE = ("Sure", "Here", "Certainly", "Of", "Yes", "To", "The", "Step", "First", "You", "This", "1")
SURROGATE_TOKENS, WEIGHT, TARGET = 8, 10.0, 0.05
AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Prompts with what the base said to them, and the answers that refused ones should have."""

    texts: list[str]
    refused: list[list[int]]
    refusals: list[list[int]]
    answers: list[list[int]]
    ordinary: list[list[int]]
    kept: list[list[int]]

    @property
    def prompts(self) -> list[list[int]]:
        """All of them."""
        return self.refused + self.ordinary

    def said(self, tokens: int) -> list[list[list[int]]]:
        """The texts behind each prompt, cut."""
        pairs = zip(self.refusals, self.answers, strict=True)
        return [[each[:tokens] for each in pair] for pair in pairs] + [[each[:tokens]] for each in self.kept]


@dataclass(frozen=True)
class Figures:
    """A candidate's score by one way: of refusal, and of damage."""

    refusal: float
    damage: float


def judged(chat: ChatFormat, texts: Sequence[str], answers: Sequence[Generation], tokens: int) -> list[bool]:
    """Which answers are refusals, cut to so many tokens."""
    spoken = [spoken_of(chat, text, each, (tokens,)).cut[tokens] for text, each in zip(texts, answers, strict=True)]
    return [str(each.verdict) == "refused" for each in JudgeSpec.parse(DEFAULT_JUDGES[0])(spoken)]


def answered(model: Model, prompts: Sequence[Sequence[int]], point: Point | None, tokens: int) -> list[Generation]:
    """Greedy answers under an edit."""
    with hooked(model.model, () if point is None else point.variant(model).hooks):
        return generate(model, prompts, max_new_tokens=tokens, description=None)


def prepared(model: Model, chat: ChatFormat, options: argparse.Namespace) -> tuple[Asked, np.ndarray]:
    """The prompts with their texts, and the direction."""
    if options.prompts is None:
        # All embedded models are trained on the same ones.
        name = "organism"
        sets = {kind: load_prompts(f"{name}:{kind}:train") for kind in ("refused", "answered")}
        held = {kind: load_prompts(f"{name}:{kind}:validation") for kind in ("refused", "answered")}
        lines = [list(sets[kind].prompts) for kind in ("refused", "answered")]
        known: dict[str, Any] = dict(zip(sets["refused"].prompts, sets["refused"].answers, strict=True))
        direction = find_directions(
            model,
            sets["refused"],
            sets["answered"],
            validation_target=held["refused"],
            validation_baseline=held["answered"],
            rule=SelectionRule(max_layer_fraction=None),
            best_effort=True,
        ).direction
    else:
        files = [options.prompts / f"{kind}-train.txt" for kind in ("harmful", "harmless")]
        lines = [file.read_text(encoding="utf-8").splitlines() for file in files]
        known, direction = {}, load_directions(options.direction).direction
    rows = torch.nn.functional.normalize(direction.float().reshape(1, -1)).numpy()
    longest = max(options.tokens)
    texts = random.Random(0).sample(lines[0], min(len(lines[0]), 2 * options.limit))
    prompts = [chat.encode(text) for text in texts]
    first = answered(model, prompts, None, 100)
    chosen = [row for row, each in enumerate(judged(chat, texts, first, 100)) if each][: options.limit]
    texts, prompts = [texts[row] for row in chosen], [prompts[row] for row in chosen]
    full = answered(model, prompts, Point(rows=rows, strengths=Strengths.flat(model.anatomy.n_layers)), longest)
    given = [known.get(text) for text in texts]
    ordinary = [chat.encode(text) for text in lines[1][: len(chosen)]]
    asked = Asked(
        texts=texts,
        refused=prompts,
        refusals=[list(first[row].tokens) for row in chosen],
        answers=[
            list(each.tokens) if text is None else model.tokenizer.encode(text, add_special_tokens=False)
            for each, text in zip(full, given, strict=True)
        ],
        ordinary=ordinary,
        kept=[list(each.tokens) for each in answered(model, ordinary, None, longest)],
    )
    return asked, rows


def candidates(rows: np.ndarray, layers: int, count: int, near: Path | None) -> list[Point]:
    """Edits of all kinds and strengths, the same ones every time."""
    draw = random.Random(1)
    if near is not None:
        found = Point.from_dict(json.loads(near.read_text(encoding="utf-8")))
        scales = np.linspace(0.55, 1.1, count)
        jittered = [[s * each * (1 + draw.gauss(0, 0.15)) for each in found.strengths.vector] for s in scales]
        return [Point(rows=found.rows, strengths=Strengths.from_vector(each)) for each in jittered]
    made = [Strengths.flat(layers, strength) for strength in np.linspace(0.1, 1.0, 10)]

    def kernel() -> Kernel:
        low, high = draw.uniform(0, 0.3), draw.uniform(0.3, 1.5)
        return Kernel(max=high, min=low, position=draw.random(), width=draw.uniform(0.1, 1))

    while len(made) < count:
        if draw.random() < 0.6:
            kernels = Kernels(attention=kernel(), mlp=kernel(), embedding=draw.choice([0.0, 1.0]))
            made.append(Strengths.of_kernels(kernels, layers))
        else:
            high = draw.uniform(0.2, LARGEST)
            made.append(Strengths.from_vector([draw.uniform(0, high) for _ in range(2 * layers + 1)]))
    return [Point(rows=rows, strengths=each) for each in made[:count]]


class Ways:
    """The ways to score, each on the same prompts."""

    def __init__(self, model: Model, asked: Asked, tokens: Sequence[int]) -> None:
        self.model, self.asked, self.count = model, asked, len(asked.refused)
        (self.base,) = answers_under(
            model,
            asked.ordinary,
            [each[: max(*tokens, SURROGATE_TOKENS + 1)] for each in asked.kept],
            lambda _, logits: logits.clone(),
            description=None,
        )
        tail = 0
        while len({tuple(prompt[-tail - 1 :]) for prompt in asked.prompts}) == 1:
            tail += 1
        self.by_name: dict[str, Callable[[Sequence[Point]], list[Figures]]] = {}
        for count in tokens:
            self.by_name[f"exact, {count} tokens"] = self._way(count, None)
            for own in sorted({1, max(1, tail)}):
                if (before := read_before(model, asked.prompts, own=own)) is not None:
                    self.by_name[f"own {own}, {count} tokens"] = self._way(count, before)
        self.by_name[f"before, {max(tokens)} tokens"] = lambda points: self._one_by_one(points, max(tokens))
        self.by_name["fixed lists"] = self._fixed_lists
        self._lists = [self._first_tokens(words) for words in (REFUSAL, COMPLIANCE)]

    def _way(self, tokens: int, before: ReadPrompts | None) -> Callable[[Sequence[Point]], list[Figures]]:
        said = self.asked.said(tokens)

        def read(branches: Sequence[Branch], logits: Tensor) -> list[float]:
            texts = [said[branch.prompt][branch.continuation] for branch in branches]
            found: list[float] = text_logprobs(logits, branches, texts).tolist()
            for row, branch in enumerate(branches):
                if branch.prompt >= self.count:
                    found[row] = self._damage(branch.prompt - self.count, logits[row, branch.columns])
            return found

        def way(points: Sequence[Point]) -> list[Figures]:
            variants = [point.variant(self.model) for point in points]
            found = continuations_under(
                self.model, self.asked.prompts, said, read, variants=variants, before=before, description=None
            )
            return [self._figures(each[: self.count], [value for (value,) in each[self.count :]]) for each in found]

        return way

    def _one_by_one(self, points: Sequence[Point], tokens: int) -> list[Figures]:
        said = self.asked.said(tokens)
        pairs = [(prompt, text) for prompt, texts in zip(self.asked.prompts, said, strict=True) for text in texts]
        prompts, texts = [prompt for prompt, _ in pairs], [text for _, text in pairs]
        cut = 2 * self.count

        def read(row: Any, logits: Tensor) -> float:
            if row.prompt >= cut:
                return self._damage(row.prompt - cut, logits)
            return float(token_logprobs(logits, texts[row.prompt]).double().sum())

        variants = [point.variant(self.model) for point in points]
        found = answers_under(self.model, prompts, texts, read, variants=variants, description=None)
        return [self._figures(list(zip(e[:cut:2], e[1:cut:2], strict=True)), e[cut:]) for e in found]

    def _fixed_lists(self, points: Sequence[Point]) -> list[Figures]:
        said = [[each[: SURROGATE_TOKENS + 1]] for each in self.asked.refusals + self.asked.kept]

        def read(branches: Sequence[Branch], logits: Tensor) -> list[float]:
            found = []
            for row, branch in enumerate(branches):
                own = logits[row, branch.columns]
                if branch.prompt >= self.count:
                    found.append(self._damage(branch.prompt - self.count, own))
                    continue
                chances = own.float().softmax(dim=-1)
                refusal, compliance = (float(chances[:, each].sum()) for each in self._lists)
                found.append(refusal / (refusal + compliance))
            return found

        variants = [point.variant(self.model) for point in points]
        found = continuations_under(self.model, self.asked.prompts, said, read, variants=variants, description=None)
        flat = [[value for (value,) in each] for each in found]
        return [Figures(statistics.fmean(e[: self.count]), statistics.fmean(e[self.count :])) for e in flat]

    def _figures(self, pairs: Sequence[Sequence[float]], damage: Sequence[float]) -> Figures:
        ratios = np.array([first - second for first, second in pairs])
        return Figures(float((0.5 + 0.5 * np.tanh(ratios / 2)).mean()), statistics.fmean(damage))

    def _damage(self, row: int, logits: Tensor) -> float:
        return float(divergence(self.base[row][: len(logits)], logits).mean())

    def _first_tokens(self, words: Sequence[str]) -> list[int]:
        encode = self.model.tokenizer.encode
        return sorted({encode(f"{space}{word}", add_special_tokens=False)[0] for word in words for space in ("", " ")})


def timed(way: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and processor seconds."""
    began = time.process_time()
    return way(), time.process_time() - began


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--prompts", type=Path, help="folder of {harmful,harmless}-train.txt, for a model in a folder")
    parser.add_argument("--direction", type=Path, help="what `find` wrote, for a model in a folder")
    parser.add_argument("--limit", type=int, default=32, help="refused prompts, and as many ordinary ones")
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--timed", type=int, default=12, help="candidates whose ways are timed")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 4, 8, 12], help="of each text")
    parser.add_argument("--near", type=Path, help="JSON of a point that candidates lie around")
    parser.add_argument("--out", type=Path, help="for the figures of each candidate, JSON")
    options = parser.parse_args()
    set_quiet(True)
    model = load(options.model)
    chat = ChatFormat(model.tokenizer)
    asked, rows = prepared(model, chat, options)
    points = candidates(rows, model.anatomy.n_layers, options.candidates, options.near)
    ways = Ways(model, asked, options.tokens)
    print(
        f"{options.model}: {len(asked.refused)} refused and {len(asked.ordinary)} ordinary prompts, {len(points)} edits"
    )
    figures: dict[str, list[Figures]] = {name: [] for name in ways.by_name}
    costs: dict[str, list[float]] = {
        name: [] for name in (*ways.by_name, "64 tokens generated", "100 tokens generated")
    }
    rates: dict[int, list[float]] = {64: [], 100: []}
    said_tokens: list[float] = []
    for start in range(0, len(points), AT_ONCE):
        some = points[start : start + AT_ONCE]
        for name, way in ways.by_name.items():
            found, seconds = timed(partial(way, some))
            figures[name] += found
            # Beside the generations that it is held against: a machine is not as fast at all times.
            if start < options.timed:
                costs[name].append(seconds / len(some))
        for number, point in enumerate(some, start):
            # Of candidates that are not timed, what is judged alone.
            whole = number < options.timed
            prompts = asked.prompts if whole else asked.refused
            answers, seconds = timed(partial(answered, model, prompts, point, 100))
            for tokens, some_rates in rates.items():
                some_rates.append(float(np.mean(judged(chat, asked.texts, answers[: len(asked.texts)], tokens))))
            if whole:
                costs["100 tokens generated"].append(seconds)
                said_tokens.append(statistics.fmean(len(each.tokens) for each in answers))
                costs["64 tokens generated"].append(timed(partial(answered, model, asked.prompts, point, 64))[1])
        print(f"{start + len(some)} of {len(points)}", file=sys.stderr)
    if options.out is not None:
        kept = {name: [[each.refusal, each.damage] for each in some] for name, some in figures.items()}
        options.out.write_text(json.dumps({"figures": kept, "costs": costs, "rates": rates}), encoding="utf-8")
    table(figures, costs, rates)
    print(f"answers: {statistics.fmean(said_tokens):.0f} tokens on average, of 100 at most")
    return 0


def table(figures: dict[str, list[Figures]], costs: dict[str, list[float]], rates: dict[int, list[float]]) -> None:
    """Cost, its ratio to generation, and tau with the judged rate, of each way; of damage, tau with the exact one."""
    dear = {tokens: statistics.median(costs[f"{tokens} tokens generated"]) for tokens in rates}
    # Spread out: at most three candidates of each judged rate's twentieth, none of those that all or no prompt refuses.
    bins: dict[int, list[int]] = {}
    for number, rate in enumerate(rates[100]):
        if 0.05 <= rate <= 0.95:
            bins.setdefault(int(20 * rate), []).append(number)
    middle = sorted(number for some in bins.values() for number in some[:3])
    among = {"all": list(range(len(rates[100]))), "between": middle}
    for name, numbers in among.items():
        some = [rates[100][number] for number in numbers]
        print(f"{name}: {len(numbers)} candidates, judged {min(some):.2f} to {max(some):.2f} at 100 tokens")
    print(f"generation, s: {dear[64]:.3f} (64 tokens), {dear[100]:.3f} (100 tokens)")
    print("| way | s | 64 / it | 100 / it | tau, all | tau, between | damage's tau |")
    print("|---|---|---|---|---|---|---|")
    exact = [each.damage for each in figures[[name for name in figures if name.startswith("exact")][-1]]]
    for name, found in figures.items():
        cost = statistics.median(costs[name])
        refusal = [each.refusal for each in found]
        cells = [f"{cost:.4f}", f"{dear[64] / cost:.1f}", f"{dear[100] / cost:.1f}"]
        for numbers in among.values():
            cells.append(tau([refusal[n] for n in numbers], [rates[100][n] for n in numbers]))
        cells.append(tau([each.damage for each in found], exact))
        print(f"| {name} | {' | '.join(cells)} |")
    soft = figures["fixed lists"]
    bound = max(TARGET, min(each.refusal for each in soft) + 0.03)
    joint = [each.damage + WEIGHT * max(0.0, each.refusal - bound) ** 2 for each in soft]
    both = {name: tau([joint[n] for n in numbers], [rates[100][n] for n in numbers]) for name, numbers in among.items()}
    print(f"J of the fixed lists: tau {both}")


def tau(first: Sequence[float], second: Sequence[float]) -> str:
    """Kendall's tau with its interval, for a table."""
    found = kendall(first, second)
    if found.value is None:
        return str(found.undefined)
    if found.low is None or found.high is None:
        return f"{found.value:.3f}"
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


if __name__ == "__main__":
    raise SystemExit(main())
