"""The evaluation of a model on prompt sets, alone or against its base."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from weight_edit.checkpoint.whole_file import check_target
from weight_edit.errors import UsageError, WeightEditError
from weight_edit.evaluation.answers import with_answers_kept, write_answers
from weight_edit.evaluation.judged import judged, with_nats
from weight_edit.evaluation.loaders import Loader, loader_of
from weight_edit.evaluation.loss import LossBeside
from weight_edit.evaluation.notes import notes_on
from weight_edit.evaluation.probabilities import BaseLogprobs
from weight_edit.evaluation.questions import KL_TOKENS, SETS, Questions, compared, questions_of
from weight_edit.evaluation.registry import DEFAULT_JUDGES, JudgeSpec
from weight_edit.evaluation.results import Evaluation, set_result
from weight_edit.evaluation.spoken import Spoken
from weight_edit.evaluation.target import Target
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.loading import Model
from weight_edit.runtime.processes import from_first, writes
from weight_edit.utils.renamed import renamed_arguments


@renamed_arguments(format="chat_format", judge_name="judges")
def evaluate(
    model: Model | str | Path | Target,
    *,
    refused: PromptSet | str | Path | None = None,
    answered: PromptSet | str | Path | None = None,
    over_refused: PromptSet | str | Path | None = None,
    harmless_looking: PromptSet | str | Path | None = None,
    text: PromptSet | str | Path | None = None,
    against: Model | str | Path | Target | None = None,
    base_logprobs: Tensor | BaseLogprobs | None = None,
    base: Evaluation | None = None,
    chat_format: ChatFormat | None = None,
    max_new_tokens: int | None = None,
    lengths: str | Sequence[int] | None = None,
    kl_tokens: int = KL_TOKENS,
    answers_path: str | Path | None = None,
    limit: int | None = None,
    judges: str | JudgeSpec | Sequence[str | JudgeSpec] = DEFAULT_JUDGES,
    batch_size: int | None = None,
) -> Evaluation:
    """Measure refusals, right answers, loss and divergence of a model's greedy answers.

    Models that think first are judged by what follows `</think>`; give them a `max_new_tokens` that holds both. The
    divergence is that of the first token after the prompt and the special tokens that open an answer
    (`ChatFormat.opening`), so of a thought between tags; with a `ThoughtFormat` that keeps the
    base's thoughts it is that of the answer. From there on both models read the base's own greedy answer: its first
    `kl_tokens` for the divergence along it, all of it for its cross-entropy.

    Args:
        model: from `load`, or what `load` takes; the path of a GGUF file, which `llama-server` runs where there is one
            and else transformers; or another `Target` such as an `Endpoint`. Of served models what needs the
            probabilities of given texts is missing, and the divergence is a lower bound (`notes` say both).
        refused: requests that the base refuses, a set or what `load_prompts` takes, as all of them may be. Their known
            answers, if any, are the helpful ones.
        answered: ordinary requests. Divergences are measured on these.
        over_refused: harmless requests that the base refuses.
        harmless_looking: harmless requests that look harmful and that the base answers.
        text: texts whose cross-entropy and perplexity are measured, without a chat format.
        against: the base: it answers the same prompts, and the model is compared with it. One that is given by name is
            gone before the model is loaded.
        base_logprobs: what `Target.base_logprobs` of the base gives, instead of a run of `against`; or
            `first_token_logprobs` of the answered set, which allow the first token's divergence alone.
        base: what was measured of the base on the same sets, likewise.
        chat_format: how prompts become tokens; None is the tokenizer's own template. A server has its own.
        max_new_tokens: the limit on an answer's length; None is 64, or the longest of `lengths`.
        lengths: also judge every answer cut to its first so many tokens, such as (32, 64, 128, 256) or "32,64": one
            generation serves all. A server's answers cannot be cut, which `notes` say.
        kl_tokens: of the base's own answers over which the divergence is measured, too.
        answers_path: a JSONL file for every answer, written at the end.
        limit: use at most so many prompts of each set (chosen with seed 0, categories in proportion).
        judges: by name, such as "phrases", or with options, such as "phrases,language=de"; the first one decides, and
            the verdicts of the others stand beside its own. An earlier version took one as `judge_name`.
        batch_size: prompts at a time, at most; None is as many as memory allows.

    Raises:
        UsageError: no set, an empty one, a base without an answered set or of another vocabulary, `max_new_tokens`
            below the longest of `lengths`, or a wrong option.
        VerificationError: a loss, a divergence or what an answer was read off is not finite.
    """
    questions = questions_of(
        dict(zip(SETS, (refused, answered, over_refused, harmless_looking), strict=True)),
        text=text,
        limit=limit,
        max_new_tokens=max_new_tokens,
        lengths=lengths,
        judges=judges,
        kl_tokens=kl_tokens,
    )
    return evaluate_in_turn(
        None if against is None else loader_of(against, chat_format, batch_size=batch_size),
        loader_of(model, chat_format, batch_size=batch_size),
        questions,
        base=base,
        base_logprobs=base_logprobs,
        answers_path=None if answers_path is None else Path(answers_path),
    )


def evaluate_in_turn(
    load_base: Loader | None,
    load_model: Loader,
    questions: Questions,
    *,
    base: Evaluation | None = None,
    base_logprobs: Tensor | BaseLogprobs | None = None,
    answers_path: Path | None = None,
) -> Evaluation:
    """The evaluation of a model beside its base, which is gone before the model is loaded: two may not fit.

    Args:
        load_base, load_model: give the two, each for the length of a block, in this order; without the first there is
            no base.
        questions: what both are asked.
        base: what was measured of the base already.
        base_logprobs: as in `evaluate`; of `load_base` where None.
        answers_path: as in `evaluate`; the answers are the model's.

    Raises:
        UsageError, VerificationError: as `evaluate`.
    """
    if base_logprobs is not None and questions.answered is None and questions.text is None:
        raise UsageError(
            "the divergence from the base is measured on the answered set; give `answered` PROMPTS", option="answered"
        )
    if answers_path is not None:
        path = answers_path
        from_first(lambda: _check_writable(path), "the file of answers")
        answers_path = path if writes() else None
    if load_base is not None:
        questions = compared(questions)
        with load_base() as before:
            base = base or measured(before, questions)
            if base_logprobs is None:
                base_logprobs = before.base_logprobs(questions)
        del before
    if isinstance(base_logprobs, Tensor):
        base_logprobs = BaseLogprobs(first=base_logprobs)
    if base is not None and base_logprobs is not None and base_logprobs.own is not None:
        base = replace(base, own_answers=LossBeside(loss=base_logprobs.own.loss))
    with load_model() as target:
        found = measured(target, questions, base_logprobs, answers_path=answers_path)
    return replace(found, base=base)


def measured(
    target: Target, questions: Questions, base: BaseLogprobs | None = None, *, answers_path: Path | None = None
) -> Evaluation:
    """The evaluation of one target: what its probabilities say, its answers, and the verdicts on these.

    Raises:
        UsageError, VerificationError: as `evaluate`.
    """
    # What may fail comes before the generation that takes long.
    told = target.probabilities(questions, base)
    said = _spoken(target, questions)
    try:
        # A judge may be another model, or paid by the answer.
        answers = from_first(lambda: judged(questions.sets, said, questions.judges), "verdicts")
    except WeightEditError as error:
        raise with_answers_kept(error, said, answers_path) from error
    for name, some in answers.items():
        answers[name] = with_nats(some, target.nats_after_thoughts(some) or told.losses.get(name, {}))
    results = {name: set_result(prompts, answers[name]) for name, prompts in questions.sets.items()}
    every = tuple(answer for some in answers.values() for answer in some)
    if answers_path is not None:
        write_answers(answers_path, every)
    undecided = [
        note
        for name, result in results.items()
        for note in notes_on(
            name,
            result,
            answers[name],
            max_new_tokens=questions.max_new_tokens,
            can_stop_thinking=target.can_stop_thinking,
        )
    ]
    return Evaluation(
        model=target.public_name,
        judge=str(questions.judges[0]),
        judges=questions.judges,
        max_new_tokens=questions.max_new_tokens,
        system=target.system,
        template=target.template,
        template_args=target.template_args,
        thinking=target.thinking,
        refused=results.get("refused"),
        answered=results.get("answered"),
        over_refused=results.get("over_refused"),
        harmless_looking=results.get("harmless_looking"),
        divergence=told.divergence,
        continuation=told.continuation,
        own_answers=told.own_answers,
        text=told.text,
        answers=every,
        notes=(*told.notes, *(() if base is None else base.notes), *target.notes(questions), *undecided),
    )


def _spoken(target: Target, questions: Questions) -> dict[str, list[Spoken]]:
    """The answers by set: one generation for all, each prompt once."""
    prompts = questions.prompts
    found: dict[str, Spoken] = {}
    if prompts:
        said = target.spoken(
            prompts, max_new_tokens=questions.max_new_tokens, lengths=questions.lengths, description="answers"
        )
        found = dict(zip(prompts, said, strict=True))
    return {name: [found[prompt] for prompt in some.prompts] for name, some in questions.sets.items()}


def _check_writable(path: Path) -> None:
    check_target(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path.parent} cannot be made: {error.strerror or error}") from None
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path} cannot be written: its folder is read-only")
