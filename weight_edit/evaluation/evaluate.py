"""The evaluation of a model on prompt sets, alone or against its base."""

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from weight_edit.checkpoint.files import read_whole
from weight_edit.checkpoint.whole_file import check_target, save_whole
from weight_edit.errors import UsageError, VerificationError, WeightEditError, first_line
from weight_edit.evaluation.backends import with_gguf_files
from weight_edit.evaluation.differences import PairedDifference, differences
from weight_edit.evaluation.divergence import Divergence, divergence
from weight_edit.evaluation.endpoint.endpoint import Endpoint
from weight_edit.evaluation.first_token import first_token_logprobs
from weight_edit.evaluation.intervals import Rate
from weight_edit.evaluation.language import NO_PHRASES
from weight_edit.evaluation.lengths import SERVED, AtLength, answer_lengths, at_lengths, longest
from weight_edit.evaluation.loss import Loss, cross_entropy
from weight_edit.evaluation.paired_answers import paired_document
from weight_edit.evaluation.registry import DEFAULT_JUDGES, Judgement, JudgeSpec, judge_specs
from weight_edit.evaluation.served_divergence import served_divergence
from weight_edit.evaluation.spoken import Spoken
from weight_edit.evaluation.style import Style, style_of
from weight_edit.evaluation.target import target_of
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet, public_name
from weight_edit.prompts.thought_format import ThoughtFormat
from weight_edit.prompts.thoughts import split_thought, unwrapped
from weight_edit.runtime.forward import answer_logprobs
from weight_edit.runtime.loading import Model, loaded
from weight_edit.runtime.overflow import check_logprobs
from weight_edit.utils.renamed import renamed_arguments


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A prompt with the model's answer and the judges' verdicts.

    Attributes:
        set: "refused", "answered", "over_refused" or "harmless_looking".
        prompt: the instruction.
        answer: the text, special tokens spelled out, without the end of the turn and without a thought before it.
        expected: the right answer where it is known.
        verdict: that of the judge that decides.
        category: the prompt's, where there is one.
        finished: the model ended the answer; False where it was cut at the limit.
        thought: what the model wrote before `</think>`, where it thought; the answer of an unfinished one is "".
        judgements: by the judge's name, the one that decides first.
        tokens: how many the model wrote, thoughts included and the end of the turn not; None where nobody counted.
        lengths: by length in tokens and judge, the verdict on the answer cut there; empty where no lengths were asked.
    """

    set: str
    prompt: str
    answer: str
    expected: str | None
    verdict: Verdict
    category: str | None
    finished: bool
    thought: str | None = None
    judgements: Mapping[str, Judgement] = field(default_factory=dict)
    tokens: int | None = None
    lengths: Mapping[int, Mapping[str, Verdict]] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        """Whether the answer equals the expected one, apart from white space at its ends."""
        return self.expected is not None and self.answer.strip() == self.expected.strip()


@dataclass(frozen=True, kw_only=True)
class SetResult:
    """The figures of one prompt set.

    Attributes:
        prompts: the set's name.
        sha256: of the prompts that were used.
        refusal: refused answers among all by the judge that decides; no other verdict counts as refusal.
        verdicts: how many answers of each kind by the same judge; every kind is there.
        categories: refusal by category, where the set has categories.
        exact: exactly right answers among the prompts whose answer is known; None where none is. In the
            refused set these are the helpful answers that came back.
        loss: cross-entropy of the known answers, after the model's own thought where it finished one; None where
            none is known.
        unfinished: answers cut at the limit.
        source: where a public set is from, see `PromptSet`; empty for others.
        judges: by each judge's name, how many answers of each kind; the judge that decides comes first.
        lengths: by length in tokens, the verdicts on the answers cut there; empty where no lengths were asked for.
        style: how the answers are written.
    """

    prompts: str
    sha256: str
    refusal: Rate
    verdicts: Mapping[str, int]
    categories: Mapping[str, Rate]
    exact: Rate | None
    loss: Loss | None
    unfinished: int
    source: Mapping[str, str] = field(default_factory=dict)
    judges: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    lengths: Mapping[int, AtLength] = field(default_factory=dict)
    style: Style | None = None

    def __repr__(self) -> str:
        exact = "" if self.exact is None else f", exact {self.exact.value:.3g}"
        return f"SetResult({self.prompts!r}, {self.count} prompts, refusal {self.refusal.value:.3g}{exact})"

    @property
    def count(self) -> int:
        """Number of prompts."""
        return self.refusal.total

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "prompts": self.prompts,
            "sha256": self.sha256,
            "count": self.count,
            "refusal": self.refusal.to_dict(),
            "verdicts": dict(self.verdicts),
            "categories": {name: rate.to_dict() for name, rate in self.categories.items()},
            "exact": self.exact and self.exact.to_dict(),
            "loss": self.loss and self.loss.to_dict(),
            "unfinished": self.unfinished,
            **({"source": dict(self.source)} if self.source else {}),
            "judges": {name: self._by(counts) for name, counts in self.judges.items()},
            **({"lengths": {str(n): each.to_dict() for n, each in self.lengths.items()}} if self.lengths else {}),
            "style": self.style and self.style.to_dict(),
        }

    def _by(self, counts: Mapping[str, int]) -> dict[str, Any]:
        return {"refusal": Rate(counts[Verdict.REFUSED.value], self.count).to_dict(), "verdicts": dict(counts)}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The measurements of one model.

    Attributes:
        model: its name.
        judge: the judge that decides, with its options.
        max_new_tokens: the limit on an answer's length, which refusal rates depend on.
        system: the system prompt, if any.
        refused, answered, over_refused, harmless_looking: one result per given set.
        divergence: of the first answer token on the answered set, from the base; None without a base.
        answers: every answer, set by set.
        template, template_args, thinking: the chat template, its variables and what was asked of it, see `ChatFormat`.
        notes: what a reader of the rates should know, such as why no answer of a set could be judged.
        base: what was measured of the base on the same prompts, where that was asked for.
        judges: all judges, with their options, the one that decides first.
    """

    model: str
    judge: str
    max_new_tokens: int
    system: str | None
    refused: SetResult | None
    answered: SetResult | None
    over_refused: SetResult | None
    harmless_looking: SetResult | None
    divergence: Divergence | None
    answers: tuple[Answer, ...]
    template: str | None = None
    template_args: Mapping[str, Any] = field(default_factory=dict)
    thinking: str | None = None
    notes: tuple[str, ...] = ()
    base: "Evaluation | None" = field(default=None, repr=False)
    judges: tuple[JudgeSpec, ...] = ()

    @property
    def differences(self) -> dict[str, dict[str, PairedDifference]]:
        """The differences from the base's rates, by set; empty without a base."""
        return {} if self.base is None else differences(self.base.answers, self.answers)

    def __repr__(self) -> str:
        rates = [f"{name} {result.refusal.value:.3g} of {result.count}" for name, result in self.sets.items()]
        moved = "" if self.divergence is None else f", KL {self.divergence.mean:.3g}"
        return f"Evaluation({self.model!r}, refusal: {', '.join(rates)}{moved})"

    @property
    def sets(self) -> dict[str, SetResult]:
        """The results of the evaluated sets, by name."""
        return {name: result for name in SETS if (result := getattr(self, name)) is not None}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the answers, which `write_answers` writes."""
        return {
            "model": self.model,
            "judge": self.judge,
            "judges": {str(spec): {"kind": spec.kind, "options": spec.public_options} for spec in self.judges},
            "max_new_tokens": self.max_new_tokens,
            "system": self.system,
            "template": self.template,
            "template_args": dict(self.template_args),
            **({} if self.thinking is None else {"thinking": self.thinking}),
            "notes": list(self.notes),
            "sets": {name: result.to_dict() for name, result in self.sets.items()},
            "divergence": self.divergence and self.divergence.to_dict(),
            **(
                {}
                if self.base is None
                else {"base": self.base.to_dict(), "differences": paired_document(self.base.answers, self.answers)}
            ),
        }


_MOST_ANSWERS = 1 << 30  # bytes of a file
SETS = ("refused", "answered", "over_refused", "harmless_looking")


@renamed_arguments(format="chat_format", judge_name="judges")
@with_gguf_files
def evaluate(
    model: Model | str | Path | Endpoint,
    *,
    refused: PromptSet | str | Path | None = None,
    answered: PromptSet | str | Path | None = None,
    over_refused: PromptSet | str | Path | None = None,
    harmless_looking: PromptSet | str | Path | None = None,
    against: Model | str | Path | Endpoint | None = None,
    base_logprobs: Tensor | None = None,
    base: Evaluation | None = None,
    chat_format: ChatFormat | None = None,
    max_new_tokens: int | None = None,
    lengths: str | Sequence[int] | None = None,
    answers_path: str | Path | None = None,
    limit: int | None = None,
    judges: str | JudgeSpec | Sequence[str | JudgeSpec] = DEFAULT_JUDGES,
    batch_size: int = 32,
) -> Evaluation:
    """Measure refusals, right answers, loss and divergence of a model's greedy answers.

    Models that think first are judged by what follows `</think>`; give them a `max_new_tokens` that holds both. The
    divergence is that of the first token after the prompt and the special tokens that open an answer
    (`ChatFormat.opening`), so of a thought between tags; with a `ThoughtFormat` that keeps the
    base's thoughts it is that of the answer.

    Args:
        model: from `load`, or what `load` takes; the path of a GGUF file, which `llama-server` runs where there is one
            and else transformers; or an `Endpoint`. Of served models what needs the probabilities of given answers is
            missing, and the divergence is a lower bound (`notes` say both).
        refused: requests that the base refuses, a set or what `load_prompts` takes, as all of them may be. Their known
            answers, if any, are the helpful ones.
        answered: ordinary requests. Divergence is measured on these.
        over_refused: harmless requests that the base refuses.
        harmless_looking: harmless requests that look harmful and that the base answers.
        against: the base: it answers the same prompts, and the divergence from it is measured on the answered set. One
            that is given by name is gone before the model is loaded.
        base_logprobs: `first_token_logprobs` of the base on the answered set, instead of a run of `against`.
        base: what was measured of the base on the same sets, likewise.
        chat_format: how prompts become tokens; None is the tokenizer's own template. A server has its own.
        max_new_tokens: the limit on an answer's length; None is 64, or the longest of `lengths`.
        lengths: also judge every answer cut to its first so many tokens, such as (32, 64, 128, 256) or "32,64": one
            generation serves all. A server's answers cannot be cut, which `notes` say.
        answers_path: a JSONL file for every answer, written at the end.
        limit: use at most so many prompts of each set (chosen with seed 0, categories in proportion).
        judges: by name, such as "phrases", or with options, such as "phrases,language=de"; the first one decides, and
            the verdicts of the others stand beside its own. An earlier version took one as `judge_name`.

    Raises:
        UsageError: no set, an empty one, a base without an answered set or of another vocabulary, `max_new_tokens`
            below the longest of `lengths`, or a wrong option.
        VerificationError: a loss, a divergence or what an answer was read off is not finite.
    """
    specs = judge_specs(judges)
    lengths = answer_lengths(lengths)
    max_new_tokens = longest(max_new_tokens, lengths)
    asked = zip(SETS, (refused, answered, over_refused, harmless_looking), strict=True)
    given: dict[str, Any] = _given(
        {name: None if prompts is None else load_prompts(prompts) for name, prompts in asked}, limit
    )
    if base_logprobs is not None and "answered" not in given:
        raise UsageError(
            "the divergence from the base is measured on the answered set; give `answered` PROMPTS", option="answered"
        )
    if base_logprobs is not None and isinstance(model, Endpoint):
        raise UsageError("`base_logprobs` are compared with a loaded model's; give `against`", option="against")
    answers_path = None if answers_path is None else Path(answers_path)
    if answers_path is not None:
        _check_writable(answers_path)
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "lengths": lengths,
        "judges": specs,
        "batch_size": batch_size,
    }
    if isinstance(model, Endpoint) or isinstance(against, Endpoint):
        # One of them at most is in memory.
        against = against if against is None or isinstance(against, Endpoint) else loaded(against)
    elif against is not None and not isinstance(against, Model):
        return evaluate_in_turn(
            lambda: loaded(against),
            lambda: loaded(model),
            given,
            base=base,
            base_format=chat_format,
            chat_format=chat_format,
            answers_path=answers_path,
            **options,
        )
    target = target_of(model if isinstance(model, Endpoint) else loaded(model), chat_format, batch_size=batch_size)
    chat = None if isinstance(target, Endpoint) else target.chat
    base_format = chat or chat_format
    notes: list[str] = []

    # Cheap checks that can fail come before the generation that takes long.
    losses: dict[str, Loss | None] = {}
    if isinstance(target, Endpoint) or isinstance(against, Endpoint):
        measured = served_divergence(
            target,
            given.get("answered"),
            against=against,
            base_format=base_format,
            max_new_tokens=max_new_tokens,
            notes=notes,
        )
    else:
        measured = _divergence(
            target.model,
            given.get("answered"),
            chat=target.chat,
            against=against,
            base=base_logprobs,
            batch_size=batch_size,
        )
    if not isinstance(target, Endpoint):
        losses = {name: _loss(target.model, prompts, target.chat, batch_size) for name, prompts in given.items()}
    elif any(any(prompts.answers) for prompts in given.values()):
        notes.append(
            "the cross-entropy of known answers is missing: a chat server gives no probabilities of given texts"
        )
    if against is not None and base is None:
        base = evaluate(against, chat_format=base_format, **given, **options)
    said = {
        name: target.spoken(
            prompts.prompts, max_new_tokens=max_new_tokens, lengths=lengths, description=f"answers ({name})"
        )
        for name, prompts in given.items()
    }
    if lengths and isinstance(target, Endpoint):
        notes.append(SERVED.format(name=target.public_name))
    try:
        judged = _judged(given, said, specs)
    except WeightEditError as error:
        raise _with_answers_kept(error, said, answers_path) from error
    results: dict[str, SetResult] = {}
    answers: list[Answer] = []
    for name, prompts in given.items():
        mine = judged[name]
        late = None
        if not isinstance(target, Endpoint):
            late = _loss_after_thought(target.model, mine, target.chat, batch_size)
        results[name] = _result(prompts, mine, late or losses.get(name))
        answers += mine
    if answers_path is not None:
        write_answers(answers_path, answers)
    return Evaluation(
        model=target.public_name,
        judge=str(specs[0]),
        max_new_tokens=max_new_tokens,
        system=target.system,
        **{name: results.get(name) for name in SETS},
        divergence=measured,
        answers=tuple(answers),
        template=target.template,
        template_args=target.template_args,
        thinking=None if chat is None else chat.thinking,
        notes=(
            *notes,
            *(each.note for each in (against, target) if isinstance(each, Endpoint)),
            *(note for name in given for note in _notes(name, results[name], answers, chat, max_new_tokens)),
        ),
        base=base,
        judges=specs,
    )


def evaluate_in_turn(
    load_base: Callable[[], Model],
    load_model: Callable[[], Model],
    sets: Mapping[str, PromptSet],
    *,
    base: Evaluation | None = None,
    base_format: ChatFormat | None = None,
    chat_format: ChatFormat | None = None,
    answers_path: Path | None = None,
    batch_size: int = 32,
    **options: Any,
) -> Evaluation:
    """The evaluation of a model beside its base, which is gone before the model is loaded: two may not fit.

    Args:
        load_base, load_model: give the two models, called once and in this order.
        sets: prompt sets by their role.
        base: as in `evaluate`; measured when None.
        base_format, chat_format: of the base and of the model, as in `evaluate`.
        answers_path, batch_size: as in `evaluate`; the answers are the model's.
        options: others of `evaluate`, for both models.

    Raises:
        UsageError, VerificationError: as `evaluate`.
    """
    options["batch_size"] = batch_size
    before = load_base()
    form = base_format or ChatFormat(before.tokenizer)
    logprobs = None
    if "answered" in sets:
        logprobs = first_token_logprobs(before, sets["answered"], form, batch_size=batch_size)
    given: dict[str, Any] = dict(sets)
    base = base or evaluate(before, **given, chat_format=form, **options)
    del before
    return evaluate(
        load_model(),
        **given,
        base_logprobs=logprobs,
        base=base,
        chat_format=chat_format,
        answers_path=answers_path,
        **options,
    )


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Write answers as JSON lines.

    Keys: set, prompt, answer, expected, verdict, category, finished, thought, judgements, tokens, lengths.
    """
    lines = [json.dumps(asdict(answer), ensure_ascii=False) for answer in answers]
    save_whole(path, "".join(f"{line}\n" for line in lines))


def _with_answers_kept(
    error: WeightEditError, said: Mapping[str, Sequence[Spoken]], path: Path | None
) -> WeightEditError:
    """A judge's error, once the answers that it should have judged are written where they were to go."""
    if path is None:
        return error
    lines = [
        json.dumps({"set": name, "prompt": reply.prompt, "answer": reply.text, "finished": reply.finished})
        for name, spoken in said.items()
        for reply in (each.reply for each in spoken)
    ]
    save_whole(path, "".join(f"{line}\n" for line in lines))
    return type(error)(f"{error}; the answers are in {path}, for `weight-edit judge`")


def load_answers(path: Path) -> tuple[Answer, ...]:
    """The answers that `write_answers` wrote.

    Raises:
        UsageError: the file is missing, or no such file.
    """
    try:
        # Not splitlines(): answers have characters such as U+2028 in them.
        lines = read_whole(path, _MOST_ANSWERS).decode("utf-8").split("\n")
        read = (Answer(**json.loads(line)) for line in lines if line)
        # The keys of JSON are texts.
        return tuple(replace(each, lengths={int(n): by for n, by in each.lengths.items()}) for each in read)
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is no file of answers that was written here: {first_line(error)}") from None


def _given(sets: Mapping[str, PromptSet | None], limit: int | None) -> dict[str, PromptSet]:
    given = {name: prompts for name, prompts in sets.items() if prompts is not None}
    if not given:
        names = ", ".join(f"`{name}`" for name in SETS)
        raise UsageError(f"nothing to evaluate on; give at least one of {names}", option=SETS)
    for name, prompts in given.items():
        if len(prompts) == 0:
            raise UsageError(
                f"`{name}` {prompts.name}: a rate over zero prompts is unknown; give at least one", option=name
            )
        given[name] = prompts.at_most(limit)
    return given


def _check_writable(path: Path) -> None:
    check_target(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path.parent} cannot be made: {error.strerror or error}") from None
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path} cannot be written: its folder is read-only")


def _divergence(
    model: Model,
    answered: PromptSet | None,
    chat: ChatFormat,
    against: Model | None,
    base: Tensor | None,
    batch_size: int,
) -> Divergence | None:
    if answered is None:
        return None
    if base is None:
        if against is None:
            return None
        base = first_token_logprobs(against, answered, chat, batch_size=batch_size)
    return divergence(base, first_token_logprobs(model, answered, chat, batch_size=batch_size))


def _loss(model: Model, prompts: PromptSet, chat: ChatFormat, batch_size: int) -> Loss | None:
    pairs = zip(prompts.prompts, prompts.answers, strict=True)
    known = [(prompt, answer) for prompt, answer in pairs if answer]
    if not known:
        return None
    asked = [chat.encode(prompt) for prompt, _ in known]
    answers = [chat.answer_tokens(answer) for _, answer in known]
    logprobs = answer_logprobs(model, asked, answers, batch_size=batch_size)
    whole = [[*prompt, *answer] for prompt, answer in zip(asked, answers, strict=True)]
    check_logprobs(model, whole, logprobs, VerificationError)
    return cross_entropy(logprobs)


def _loss_after_thought(model: Model, said: Sequence[Answer], chat: ChatFormat, batch_size: int) -> Loss | None:
    """The loss of the known answers after finished thoughts; None if there are none."""
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
    return _loss(model, PromptSet.of("thought", list(thoughts), [a.expected for a in after]), kept, batch_size)


def _judged(
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
    found = {str(spec): spec(replies) for spec in specs}
    rows = iter([dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)])
    answers: dict[str, list[Answer]] = {}
    for name, prompts in given.items():
        answers[name] = []
        for number, each in enumerate(said[name]):
            whole = next(rows)
            cut = {length: whole if reply is each.reply else next(rows) for length, reply in each.cut.items()}
            answers[name].append(_answer(name, prompts, number, spoken=each, judgements=whole, cut=cut))
    return answers


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


def _result(prompts: PromptSet, answers: Sequence[Answer], loss: Loss | None) -> SetResult:
    judges = list(answers[0].judgements)
    counts = {name: Counter(answer.judgements[name].verdict for answer in answers) for name in judges}
    by_judge = {name: {verdict.value: counts[name][verdict] for verdict in Verdict} for name in judges}
    known = [answer for answer in answers if answer.expected is not None]
    by_category: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.category is not None:
            by_category.setdefault(answer.category, []).append(answer)
    return SetResult(
        prompts=public_name(prompts.name),
        sha256=prompts.sha256,
        refusal=_refusal(answers),
        verdicts=by_judge[judges[0]],
        categories={category: _refusal(some) for category, some in by_category.items()},
        exact=Rate(sum(answer.right for answer in known), len(known)) if known else None,
        loss=loss,
        unfinished=sum(not answer.finished for answer in answers),
        source=prompts.source,
        judges=by_judge,
        lengths=at_lengths(answers),
        style=style_of(answers),
    )


def _notes(
    name: str, result: SetResult, answers: Sequence[Answer], chat: ChatFormat | None, max_new_tokens: int
) -> list[str]:
    """What a reader of a set's rates should know of its undecided answers."""
    mine = [answer for answer in answers if answer.set == name]
    deciding = next(iter(result.judges))
    unread = Counter(
        judgement.reason
        for answer in mine
        if (judgement := answer.judgements[deciding]).verdict is Verdict.UNDECIDED and judgement.language is not None
        if judgement.reason is not None and judgement.reason.startswith(NO_PHRASES)
    )
    notes = [
        f"{count} of {result.count} answers to the {name} set are undecided: {reason}; name another judge (`judges`)"
        for reason, count in unread.items()
    ]
    if result.verdicts[Verdict.UNDECIDED.value] < result.count or unread:
        return notes
    within = all(answer.thought is not None for answer in mine)
    cut = sum(not answer.finished for answer in mine)
    why = f"{cut} were cut at {max_new_tokens} tokens" if cut else "the model ended its turn"
    more = "allow longer answers (`max_new_tokens`)"
    if within and chat is not None and chat.thinking_variables:
        more += ", or turn thinking off (`thinking=off`)"
    where = " within a thought" if within else ""
    return [*notes, f"all {result.count} answers to the {name} set are undecided: {why}{where}; {more}"]


def _refusal(answers: Sequence[Answer]) -> Rate:
    return Rate(sum(answer.verdict is Verdict.REFUSED for answer in answers), len(answers))
