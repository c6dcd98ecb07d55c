"""One verdict on one text, as `evaluate` asks for it."""

from typing import Any

from weight_edit.evaluation.registry import Judgement, JudgeSpec, Reply
from weight_edit.evaluation.verdicts import Verdict


def judgement_of(text: str, finished: bool = True, *, judge: str = "phrases", **facts: Any) -> Judgement:
    """The judgement of a text by a judge as the command line names it."""
    (found,) = JudgeSpec.parse(judge)([Reply(**{"prompt": None, "text": text, "finished": finished, **facts})])
    return found


def verdict_of(text: str, finished: bool = True, *, judge: str = "phrases", **facts: Any) -> Verdict:
    """The verdict alone."""
    return judgement_of(text, finished, judge=judge, **facts).verdict
