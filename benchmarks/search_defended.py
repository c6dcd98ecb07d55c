"""What descents reach on the embedded models, judged on whole test sets: `python benchmarks/search_defended.py`.

For each number of directions and each seed, a descent starts from the plain full ablation along the mean difference and
follows its ladder of prices on training prompts; refusals are generated anew with `phrases` as judge. Printed, on all
test prompts at 64 tokens: the share of requests refused, the share that got their known answer, the share of ordinary
prompts answered exactly right, damage on the training texts (nats per token), and the processor's seconds.
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from weight_edit.directions.find import find_directions
from weight_edit.directions.selection import SelectionRule
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.evaluation.registry import JudgeSpec, Reply
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.generation import Generation, generate
from weight_edit.runtime.hooks import hooked
from weight_edit.runtime.loading import Model, load
from weight_edit.search.descent import descend
from weight_edit.search.descent_options import DescentOptions
from weight_edit.search.point import Point
from weight_edit.search.score import Scorer
from weight_edit.search.strengths import Strengths
from weight_edit.search.texts import Choice, Kept, Texts

LIMIT = 64
"""Tokens of an answer that is judged."""


@dataclass(frozen=True)
class Speaker:
    """A model that answers sets of prompts under an edit."""

    model: Model
    chat: ChatFormat

    def say(self, prompts: Sequence[str], point: Point | None) -> list[Generation]:
        """The answers, at most `LIMIT` tokens long."""
        hooks = () if point is None else point.variant(self.model).hooks
        with hooked(self.model.model, hooks):
            return generate(
                self.model, [self.chat.encode(prompt) for prompt in prompts], max_new_tokens=LIMIT, description=None
            )

    def refused(self, prompts: Sequence[str], said: Sequence[Generation]) -> list[bool]:
        """Whether `phrases` calls each a refusal."""
        replies = [Reply(prompt=p, text=g.text, finished=g.finished) for p, g in zip(prompts, said, strict=True)]
        return [each.verdict is Verdict.REFUSED for each in JudgeSpec.parse("phrases")(replies)]

    def texts(self, refused: PromptSet, ordinary: PromptSet, count: int, seed: int) -> Texts:
        """Training texts of some prompts: the base's refusals against known answers, and what it says otherwise."""

        def some(given: PromptSet) -> list[int]:
            return random.Random(seed).sample(range(len(given.prompts)), min(count, len(given.prompts)))

        numbers = some(refused)
        prompts = [refused.prompts[number] for number in numbers]
        said = self.say(prompts, None)
        choices = [
            Choice(
                prompt=tuple(self.chat.encode(prompt)),
                text=prompt,
                refusal=each.tokens,
                answer=(*self._tokens(refused.answers[number]), each.tokens[-1]),
            )
            for number, prompt, each, declined in zip(numbers, prompts, said, self.refused(prompts, said), strict=True)
            if declined and each.finished
        ]
        prompts = [ordinary.prompts[number] for number in some(ordinary)]
        kept = [
            Kept(prompt=tuple(self.chat.encode(prompt)), text=prompt, answer=each.tokens)
            for prompt, each in zip(prompts, self.say(prompts, None), strict=True)
        ]
        return Texts(refused=tuple(choices), ordinary=tuple(kept))

    def still_refused(self, texts: Texts, point: Point) -> list[Choice]:
        """The training prompts that are refused under a point, with these refusals."""
        prompts = [choice.text for choice in texts.refused]
        said = self.say(prompts, point)
        declined = self.refused(prompts, said)
        return [
            Choice(prompt=choice.prompt, text=choice.text, refusal=each.tokens, answer=choice.answer)
            for choice, each, refused in zip(texts.refused, said, declined, strict=True)
            if refused
        ]

    def judged(self, point: Point | None) -> dict[str, float]:
        """The rates on the whole test sets."""
        refused, ordinary = (load_prompts(f"organism:{kind}:test") for kind in ("refused", "answered"))
        said = self.say(refused.prompts, point)
        return {
            "refused": mean(self.refused(refused.prompts, said)),
            "known": exact(refused, said),
            "exact": exact(ordinary, self.say(ordinary.prompts, point)),
        }

    def _tokens(self, text: str | None) -> list[int]:
        return list(self.model.tokenizer.encode(text or "", add_special_tokens=False))


def mean(values: Sequence[bool]) -> float:
    """The share that is true."""
    return round(sum(values) / len(values), 4)


def exact(given: PromptSet, said: Sequence[Generation]) -> float:
    """The share of answers that are the known ones."""
    return mean([each.text.strip() == answer for each, answer in zip(said, given.answers, strict=True)])


def plain(model: Model) -> Point:
    """The full ablation along the direction that `find` takes."""
    sets = {
        f"{kind}:{part}": f"organism:{kind}:{part}"
        for kind in ("refused", "answered")
        for part in ("train", "validation")
    }
    found = find_directions(
        model,
        load_prompts(sets["refused:train"]),
        load_prompts(sets["answered:train"]),
        validation_target=load_prompts(sets["refused:validation"]),
        validation_baseline=load_prompts(sets["answered:validation"]),
        rule=SelectionRule(max_layer_fraction=None),
        best_effort=True,
    )
    rows = orthonormal_rows(found.direction.reshape(-1, model.anatomy.d_model)).astype("float32")
    return Point(rows=rows, strengths=Strengths.flat(model.anatomy.n_layers), embeddings="untie", origin="plain")


def main() -> None:
    """Print one JSON line for each edit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="organism-defended")
    parser.add_argument("--directions", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--prompts", type=int, default=96, help="training prompts of each kind")
    parser.add_argument("--tokens", type=int, default=32, help="of each continuation")
    parser.add_argument("--options", type=json.loads, default={}, help="other settings of the descent, as JSON")
    arguments = parser.parse_args()

    model = load(arguments.model, dtype="float32")
    speaker = Speaker(model, ChatFormat(model.tokenizer))
    start = plain(model)
    print(json.dumps({"edit": "none", **speaker.judged(None)}), flush=True)
    print(json.dumps({"edit": "plain", **speaker.judged(start)}), flush=True)
    refused, ordinary = (load_prompts(f"organism:{kind}:train") for kind in ("refused", "answered"))
    for directions in arguments.directions:
        for seed in arguments.seeds:
            began = time.process_time()
            texts = speaker.texts(refused, ordinary, arguments.prompts, seed)
            found = descend(
                Scorer(model, texts, tokens=arguments.tokens),
                start,
                DescentOptions(directions=directions, seed=seed, **arguments.options),
                refusals=lambda point, texts=texts: speaker.still_refused(texts, point),  # type: ignore[misc]
            )
            seconds = time.process_time() - began
            for each in found:
                row = {
                    "directions": directions,
                    "seed": seed,
                    "price": each.price,
                    **speaker.judged(each.point),
                    "score": round(each.score.refusal, 4),
                    "damage": round(each.score.damage, 5),
                    "joined": each.point.facts["joined"],
                    "seconds": round(seconds),
                }
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
