"""What an edit changed: refusal and over-refusal, right answers, divergence and loss, with intervals."""

from weight_edit.evaluation.divergence import Divergence, divergence
from weight_edit.evaluation.evaluate import Answer, Evaluation, SetResult, evaluate, first_token_logprobs
from weight_edit.evaluation.intervals import Rate
from weight_edit.evaluation.judge import EXTENDED, JUDGES, PUBLISHED, Judge, Verdict, judge
from weight_edit.evaluation.loss import Loss, cross_entropy
from weight_edit.evaluation.thinking import think

__all__ = [
    "EXTENDED",
    "JUDGES",
    "PUBLISHED",
    "Answer",
    "Divergence",
    "Evaluation",
    "Judge",
    "Loss",
    "Rate",
    "SetResult",
    "Verdict",
    "cross_entropy",
    "divergence",
    "evaluate",
    "first_token_logprobs",
    "judge",
    "think",
]
