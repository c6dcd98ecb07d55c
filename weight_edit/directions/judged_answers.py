"""The model's own answers to a search's prompts, as a judge reads them."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from weight_edit.directions.samples import Sample
from weight_edit.evaluation.registry import JudgeSpec, Reply
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.prompts.answers import answer_text
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.thoughts import split_thought
from weight_edit.runtime.generation import Generation, generate
from weight_edit.runtime.loading import Model
from weight_edit.runtime.overflow import check_generations
from weight_edit.runtime.processes import from_first

Place = tuple[int, str, int]
"""A prompt of a search: its sample (targets first, the baseline last), "train", "validation" or "more", its number."""

DECLINED = frozenset((Verdict.REFUSED, Verdict.DEFLECTED))
"""What does not do as it was asked: refused, or another thing said."""


@dataclass(frozen=True, kw_only=True)
class JudgedAnswer:
    """A greedy answer with a judge's verdict.

    Attributes:
        token: the id of its first token, that which a refusal metric reads.
        verdict: the judge's.
        thought: whether the answer begins with a thought, so that its first token is one of that.
        text: the answer, cut at the limit.
    """

    token: int
    verdict: Verdict
    thought: bool
    text: str

    @property
    def refused(self) -> bool:
        """Whether the judge calls it a refusal."""
        return self.verdict is Verdict.REFUSED


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """A model, the format of its prompts and a judge of its answers.

    Attributes:
        model: the model, whatever hooks are on it.
        chat: how prompts become tokens.
        judge: reads the answers.
        max_new_tokens: the length of an answer, at most.
        batch_size: prompts at a time, at most; None is as many as memory allows.
    """

    model: Model
    chat: ChatFormat
    judge: JudgeSpec
    max_new_tokens: int
    batch_size: int | None = None

    def answers(
        self,
        prompts: Sequence[Sequence[int]],
        texts: Sequence[str],
        *,
        opened: bool = False,
        description: str | None = "answers",
    ) -> list[JudgedAnswer]:
        """The answers to prompts, judged.

        Args:
            prompts: token ids.
            texts: of the same prompts, for the judge.
            opened: the template's opening of an answer (`ChatFormat.opening`) is put behind each prompt, so that the
                first token is the one behind it, where refusal metrics look; without it the model opens its answers.
            description: names the progress bar; None draws none.

        Raises:
            UsageError: a prompt is too long, or the model's logits are no numbers.
        """
        return [answer for _, answer in self.spoken(prompts, texts, opened=opened, description=description)]

    def spoken(
        self,
        prompts: Sequence[Sequence[int]],
        texts: Sequence[str],
        *,
        opened: bool = False,
        description: str | None = "answers",
    ) -> list[tuple[Generation, JudgedAnswer]]:
        """The answers of `answers`, each with the tokens that it was read off."""
        given = [[*ids, *self.chat.opening] for ids in prompts] if opened else [list(ids) for ids in prompts]
        said = generate(
            self.model,
            given,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
            description=description,
        )
        check_generations(self.model, given, said)
        control = tuple(map(str, self.model.tokenizer.all_special_tokens))
        within = self.chat.opens_thought and not (opened and self.chat.opening)
        replies = []
        for prompt, generation in zip(texts, said, strict=True):
            text, finished = answer_text(self.chat, generation.tokens, generation.finished)
            replies.append(Reply(prompt=prompt, text=text, finished=finished, opened=within, control=control))
        # A judge may be another model, or paid by the answer.
        verdicts = from_first(lambda: self.judge(replies), "verdicts")
        return [
            (
                generation,
                JudgedAnswer(
                    token=generation.tokens[0],
                    verdict=judgement.verdict,
                    thought=split_thought(reply.text, opened=reply.opened) is not None,
                    text=reply.text,
                ),
            )
            for generation, reply, judgement in zip(said, replies, verdicts, strict=True)
        ]


class SampleAnswers:
    """Answers to the prompts of samples, each made and judged once.

    Args:
        samples: targets, and the baseline last.
        speaker: answers.
        known: those of an earlier attempt.
        keep: is given new ones as they come.
        seed: the order in which a sample's training prompts are asked.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        speaker: Speaker,
        known: dict[Place, JudgedAnswer],
        keep: Callable[[dict[Place, JudgedAnswer]], None],
        seed: int,
    ) -> None:
        self.samples = samples
        self._speaker, self._known, self._keep, self._seed = speaker, known, keep, seed

    def of(self, sample: int, part: str, numbers: Sequence[int] | None = None) -> list[JudgedAnswer]:
        """The answers to a sample's prompts, to all of a part or to those of these numbers."""
        prompts, texts = _part(self.samples[sample], part)
        asked = range(len(prompts)) if numbers is None else numbers
        new = [number for number in asked if (sample, part, number) not in self._known]
        if new:
            said = self._speaker.answers(
                [prompts[number] for number in new],
                [texts[number] for number in new],
                opened=True,
                description=f"answers to {self.samples[sample].role} prompts",
            )
            made = {(sample, part, number): answer for number, answer in zip(new, said, strict=True)}
            self._known |= made
            self._keep(made)
        return [self._known[sample, part, number] for number in asked]

    def undecided(self, sample: int) -> int:
        """How many of a sample's answers, of those there are, were cut before a decision."""
        return sum(at[0] == sample and each.verdict is Verdict.UNDECIDED for at, each in self._known.items())

    def order(self, sample: int) -> list[int]:
        """The numbers of a sample's training prompts in the order in which they are asked."""
        # Sets are often sorted, and a sample keeps their order.
        numbers = list(range(len(self.samples[sample].train)))
        random.Random(f"{self._seed}/answers/{sample}").shuffle(numbers)
        return numbers


def _part(sample: Sample, part: str) -> tuple[list[list[int]], tuple[str, ...]]:
    return {
        "train": (sample.train, sample.texts),
        "validation": (sample.validation, sample.held_texts),
        "more": (sample.more, sample.more_texts),
    }[part]


def to_row(place: Place, answer: JudgedAnswer) -> dict[str, Any]:
    """A line of a file of answers, JSON values."""
    sample, part, number = place
    return {
        "sample": sample,
        "part": part,
        "number": number,
        "token": answer.token,
        "verdict": answer.verdict.value,
        "thought": answer.thought,
        "text": answer.text,
    }


def from_row(row: dict[str, Any]) -> tuple[Place, JudgedAnswer]:
    """What `to_row` made a line of.

    Raises:
        LookupError, ValueError: it is no such line.
    """
    place = row["sample"], row["part"], row["number"]
    return place, JudgedAnswer(
        token=row["token"], verdict=Verdict(row["verdict"]), thought=row["thought"], text=row["text"]
    )
