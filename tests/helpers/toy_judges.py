"""Small judges for tests of what is around a judge, in place of the package's own."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from weight_edit.evaluation.registry import JUDGES, Judgement, Reply, judge
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.utils.settings import Section


class WordOptions(Section):
    """Settings of a toy judge.

    Attributes:
        word: what a refusal has in it.
    """

    word: str = "sorry"


class NoOptions(Section):
    """No settings."""


def by_word(replies: list[Reply], options: WordOptions) -> list[Judgement]:
    """Refused where a word is in the answer."""
    return [_judged(reply, options.word) for reply in replies]


def by_length(replies: list[Reply], options: NoOptions) -> list[Judgement]:
    """Refused where the answer is short."""
    return [Judgement(verdict=Verdict.REFUSED if len(reply.text) < 20 else Verdict.ANSWERED) for reply in replies]


def _judged(reply: Reply, word: str) -> Judgement:
    if not reply.text.strip():
        return Judgement(verdict=Verdict.EMPTY)
    if reply.text.startswith("<think>") and "</think>" not in reply.text:
        return Judgement(verdict=Verdict.UNDECIDED, reason="within a thought")
    at = reply.text.find(word)
    return (
        Judgement(verdict=Verdict.ANSWERED) if at < 0 else Judgement(verdict=Verdict.REFUSED, reason=word, position=at)
    )


@contextmanager
def toy_judges(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within the context, `phrases` (with `word`) and `length` are all judges that there are."""
    with monkeypatch.context() as patch:
        patch.setattr(JUDGES, "_known", {})
        patch.setattr(JUDGES, "_aliases", {})
        patch.setattr(JUDGES, "_imported", True)
        judge("phrases")(by_word)
        judge("length")(by_length)
        yield
