"""Answers with their verdicts: every judge is asked once for all of an evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from weight_edit.evaluation.answers import Answer
from weight_edit.evaluation.loss import Nats
from weight_edit.evaluation.registry import Judgement, JudgeSpec
from weight_edit.evaluation.spoken import Spoken
from weight_edit.prompts.sets import PromptSet
from weight_edit.prompts.thoughts import split_thought, unwrapped


def judged(
    given: Mapping[str, PromptSet], said: Mapping[str, Sequence[Spoken]], specs: Sequence[JudgeSpec]
) -> dict[str, list[Answer]]:
    """The answers by set; every judge is asked once, for all sets and lengths."""
    # An answer that ended before a length is the whole one there.
    replies = [
        reply
        for some in said.values()
        for each in some
        for reply in (each.reply, *(cut for cut in each.cut.values() if cut is not each.reply))
    ]
    found = {str(spec): spec(replies) if replies else [] for spec in specs}
    rows = iter([dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)])
    answers: dict[str, list[Answer]] = {}
    for name, prompts in given.items():
        answers[name] = []
        for number, each in enumerate(said[name]):
            whole = next(rows)
            cut = {length: whole if reply is each.reply else next(rows) for length, reply in each.cut.items()}
            answers[name].append(_answer(name, prompts, number, spoken=each, judgements=whole, cut=cut))
    return answers


def with_nats(answers: Sequence[Answer], nats: Mapping[str, Nats]) -> list[Answer]:
    """The answers with what the known ones cost, where that is measured."""
    return [replace(each, nats=nats.get(each.prompt)) for each in answers]


def _answer(
    name: str,
    prompts: PromptSet,
    number: int,
    *,
    spoken: Spoken,
    judgements: Mapping[str, Judgement],
    cut: Mapping[int, Mapping[str, Judgement]],
) -> Answer:
    reply = spoken.reply
    thinking = split_thought(reply.text, opened=reply.opened)
    return Answer(
        set=name,
        prompt=prompts.prompts[number],
        answer=unwrapped(reply.text) if thinking is None else thinking.answer or "",
        expected=prompts.answers[number],
        verdict=next(iter(judgements.values())).verdict,
        category=prompts.categories[number],
        finished=reply.finished,
        thought=None if thinking is None else thinking.thought,
        judgements=judgements,
        tokens=spoken.tokens,
        lengths={
            length: {judge: judgement.verdict for judge, judgement in some.items()} for length, some in cut.items()
        },
    )
