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
    known, asked, answers = known_tokens(prompts, chat)
    if not known:
        return {}
    logprobs = answer_logprobs(model, asked, answers, batch_size=batch_size)
    whole = [[*prompt, *answer] for prompt, answer in zip(asked, answers, strict=True)]
    check_logprobs(model, whole, logprobs, VerificationError)
    return dict(zip(known, nats_of(logprobs), strict=True))


def known_tokens(prompts: PromptSet, chat: ChatFormat) -> tuple[list[str], list[list[int]], list[list[int]]]:
    """The prompts whose answers are known, and the tokens of both."""
    pairs = zip(prompts.prompts, prompts.answers, strict=True)
    known = [(prompt, answer) for prompt, answer in pairs if answer]
    asked = [chat.encode(prompt) for prompt, _ in known]
    return [prompt for prompt, _ in known], asked, [chat.answer_tokens(answer) for _, answer in known]


def nats_after_thoughts(
    model: Model, said: Sequence[Answer], chat: ChatFormat, batch_size: int | None = None
) -> Mapping[str, Nats]:
    """By prompt, what its known answer costs after the model's own finished thought; empty if there is none.

    Raises:
        UsageError, VerificationError: as `known_nats`.
    """
    kept = thoughts_kept(said, chat)
    return {} if kept is None else known_nats(model, *kept, batch_size)


def thoughts_kept(said: Sequence[Answer], chat: ChatFormat) -> tuple[PromptSet, ThoughtFormat] | None:
    """The prompts with a finished thought and the format that keeps it; None if there is none."""
    if chat.opening:  # such answers are read off the conversation, which has the opening and no thought
        return None
    # An empty answer is an unfinished thought or a finished one with nothing after it, which is no loss either.
    after = [answer for answer in said if answer.thought is not None and answer.verdict is not Verdict.UNDECIDED]
    if not after:
        return None
    thoughts = {answer.prompt: answer.thought for answer in after if answer.thought is not None}
    kept = ThoughtFormat(
        chat.tokenizer, thoughts, system=chat.system, template=chat.template, template_args=chat.template_args
    )
    return PromptSet.of("thought", list(thoughts), [a.expected for a in after]), kept
