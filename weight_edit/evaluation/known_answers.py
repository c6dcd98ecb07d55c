"""What known answers cost a model, after its own thought where it finished one."""

from collections.abc import Mapping, Sequence

from weight_edit.errors import VerificationError
from weight_edit.evaluation.answers import Answer
from weight_edit.evaluation.loss import Nats, nats_of
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.prompts.thought_format import ThoughtFormat
from weight_edit.runtime.forward import answer_logprobs
from weight_edit.runtime.loading import Model
from weight_edit.runtime.overflow import check_logprobs


def known_nats(model: Model, prompts: PromptSet, chat: ChatFormat, batch_size: int | None = None) -> Mapping[str, Nats]:
    """By prompt, what its known answer costs, the end of the turn included; prompts without one are left out.

    Raises:
        UsageError: as `answer_logprobs`.
        VerificationError: a value is not finite.
    """
    pairs = zip(prompts.prompts, prompts.answers, strict=True)
    known = [(prompt, answer) for prompt, answer in pairs if answer]
    if not known:
        return {}
    asked = [chat.encode(prompt) for prompt, _ in known]
    answers = [chat.answer_tokens(answer) for _, answer in known]
    logprobs = answer_logprobs(model, asked, answers, batch_size=batch_size)
    whole = [[*prompt, *answer] for prompt, answer in zip(asked, answers, strict=True)]
    check_logprobs(model, whole, logprobs, VerificationError)
    return dict(zip((prompt for prompt, _ in known), nats_of(logprobs), strict=True))


def nats_after_thoughts(
    model: Model, said: Sequence[Answer], chat: ChatFormat, batch_size: int | None = None
) -> Mapping[str, Nats]:
    """By prompt, what its known answer costs after the model's own finished thought; empty if there is none.

    Raises:
        UsageError, VerificationError: as `known_nats`.
    """
    if chat.opening:  # such answers are read off the conversation, which has the opening and no thought
        return {}
    # An empty answer is an unfinished thought or a finished one with nothing after it, which is no loss either.
    after = [answer for answer in said if answer.thought is not None and answer.verdict is not Verdict.UNDECIDED]
    if not after:
        return {}
    thoughts = {answer.prompt: answer.thought for answer in after if answer.thought is not None}
    kept = ThoughtFormat(
        chat.tokenizer, thoughts, system=chat.system, template=chat.template, template_args=chat.template_args
    )
    return known_nats(model, PromptSet.of("thought", list(thoughts), [a.expected for a in after]), kept, batch_size)
