"""The texts of a search made: the model answers prompts as it is and under an ablation, and a judge reads it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from weight_edit.directions.find_request import FindRequest
from weight_edit.directions.judged_answers import JudgedAnswer, Speaker
from weight_edit.directions.samples import MIN_TRAIN, MIN_VALIDATION, check_distinct, draw_prompts
from weight_edit.errors import UsageError
from weight_edit.evaluation.intervals import Rate
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.prompts.answers import answer_text
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet, public_name
from weight_edit.prompts.thoughts import Thinking, split_thought
from weight_edit.runtime.generation import Generation
from weight_edit.runtime.hooks import hooked
from weight_edit.search.point import Point
from weight_edit.search.strengths import Strengths
from weight_edit.search.texts import KEPT_TOKENS, Choice, Kept, Texts

STRONGER = 1.5
"""The flat strength under which prompts are asked that the plain ablation still refuses."""

Role = Literal["refused", "ordinary", "over-refused"]
Part = Literal["training", "validation"]
LEAST: Mapping[str, int] = {"training": MIN_TRAIN, "validation": MIN_VALIDATION}
"""Prompts that each part needs of each set, as `find` does."""


@dataclass(frozen=True, kw_only=True)
class SearchPrompts:
    """The prompt sets of a search.

    Attributes:
        refused: prompts that are refused and should not be.
        ordinary: prompts that are answered, and should be as they are.
        over_refused: harmless prompts that are refused; None where none are given.
        held_refused, held_ordinary, held_over_refused: for validation; None keeps back a part of the set itself.
    """

    refused: PromptSet
    ordinary: PromptSet
    over_refused: PromptSet | None = None
    held_refused: PromptSet | None = None
    held_ordinary: PromptSet | None = None
    held_over_refused: PromptSet | None = None

    @classmethod
    def of(cls, find: FindRequest, over_refused: PromptSet | None = None) -> "SearchPrompts":
        """The prompts of a search that begins with a find: what that finds directions on trains, and nothing else.

        Where the find has no sets for validation, these are the prompts that it does not train on, so that no point is
        judged on prompts that its directions were found on.

        Raises:
            UsageError: as `draw_prompts`.
        """
        held = find.validation_target[0] if find.validation_target else None
        refused, held_refused = _apart("target", find.target[0], held, find)
        ordinary, held_ordinary = _apart("baseline", find.baseline, find.validation_baseline, find)
        return cls(
            refused=refused,
            ordinary=ordinary,
            over_refused=over_refused,
            held_refused=held_refused,
            held_ordinary=held_ordinary,
        )

    @property
    def roles(self) -> "dict[Role, tuple[PromptSet, PromptSet | None]]":
        """By role, the set with that for validation."""
        found: dict[Role, tuple[PromptSet, PromptSet | None]] = {
            "refused": (self.refused, self.held_refused),
            "ordinary": (self.ordinary, self.held_ordinary),
        }
        if self.over_refused is not None:
            found["over-refused"] = (self.over_refused, self.held_over_refused)
        return found


def _apart(role: str, prompts: PromptSet, held: PromptSet | None, find: FindRequest) -> tuple[PromptSet, PromptSet]:
    """A set's training prompts of a find, and what validates: the set that it has for that, or all others."""
    if held is not None:
        return prompts, held
    train, _ = draw_prompts(role, prompts, None, n_train=find.n_train, n_validation=find.n_validation, seed=find.seed)
    # In the order of a split's draws, whatever its sizes.
    train, others = prompts.split((len(train), len(prompts) - len(train)), find.seed)
    return train, others


@dataclass(frozen=True, kw_only=True)
class PartFacts:
    """What became of the prompts of one set and part.

    Attributes:
        role: of the set.
        part: "training" or "validation".
        name: the set's, fit for publication.
        verdicts: how many of the model's own answers are of each kind.
        kept: prompts with texts.
        known, plain, stronger: how many answers to refused prompts are the set's known ones, or the model's under the
            plain ablation, under the stronger one.
        unanswered: refused prompts that were left out since no ablation made the model answer.
        alike: refused prompts that were left out since refusal and answer are the same as far as the shorter goes.
        thoughts: kept prompts whose refusal, or the answer to an ordinary one, begins with a thought.
    """

    role: Role
    part: Part
    name: str
    verdicts: Mapping[str, int]
    kept: int
    known: int = 0
    plain: int = 0
    stronger: int = 0
    unanswered: int = 0
    alike: int = 0
    thoughts: int = 0

    @property
    def drawn(self) -> int:
        """Prompts that were asked."""
        return sum(self.verdicts.values())

    @property
    def refusal(self) -> Rate:
        """The model's own rate of refusals."""
        return Rate(self.verdicts.get(Verdict.REFUSED.value, 0), self.drawn)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the fields, how many were asked, and the rate of refusals."""
        return {**asdict(self), "verdicts": dict(self.verdicts), "drawn": self.drawn, "refusal": self.refusal.to_dict()}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "PartFacts":
        """The facts that `to_dict` gave."""
        return cls(**{name: value for name, value in entry.items() if name not in ("drawn", "refusal")})


@dataclass(frozen=True, kw_only=True)
class MadeTexts:
    """The texts of both parts of a search's prompts.

    Attributes:
        training, validation: the texts.
        facts: of each set and part.
        warnings: sentences for the user.
    """

    training: Texts
    validation: Texts
    facts: tuple[PartFacts, ...]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` makes the same of them. The texts are in it, word by word."""
        return {
            "training": self.training.to_dict(),
            "validation": self.validation.to_dict(),
            "facts": [each.to_dict() for each in self.facts],
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "MadeTexts":
        """The texts that `to_dict` gave."""
        return cls(
            training=Texts.from_dict(entry["training"]),
            validation=Texts.from_dict(entry["validation"]),
            facts=tuple(map(PartFacts.from_dict, entry["facts"])),
            warnings=tuple(entry["warnings"]),
        )


def made_texts(
    speaker: Speaker,
    prompts: SearchPrompts,
    plain: Point,
    *,
    n_train: int = 64,
    n_validation: int = 32,
    seed: int = 0,
    known_answers: bool = False,
    tokens: int = KEPT_TOKENS,
) -> MadeTexts:
    """The texts that candidates of a search are scored on, of its training and its validation prompts.

    The model answers all prompts greedily, behind the opening that its template gives answers, and a judge reads them.
    Refused prompts that are not refused are left out, and ordinary ones that are not answered. To the others the model
    answers once more under the plain ablation, and where it does not answer then, at a flat strength of 1.5; a refused
    prompt that is not answered then either is left out too.

    A thought before an answer is a part of it. Refusal and answer are compared from the first token on that tells them
    apart, so of thoughts that begin alike from where they part.

    Args:
        speaker: the model, without hooks, and its judge.
        prompts: the sets.
        plain: the full ablation along the direction that was found.
        n_train, n_validation: prompts of each set that are asked; of smaller sets four fifths and one fifth.
        seed: draws them.
        known_answers: answers to refused prompts are the set's own where it has one; none is generated to these. Where
            the refusal begins with a thought, the known answer stands behind that same thought.
        tokens: of each text that are kept.

    Raises:
        UsageError: too few prompts are left of a set, with the reasons.
    """
    warnings: list[str] = []
    check_distinct(prompts.refused, prompts.ordinary, warnings.append)
    asked = _drawn(prompts, n_train, n_validation, seed, warnings.append)
    answers = _Answers(speaker)
    answers.ask(None, [prompt for each in asked for prompt in each.prompts.prompts])
    asked = [replace(each, own=answers.of(None, each.prompts.prompts)) for each in asked]
    maker = _Maker(answers=answers, plain=plain, known_answers=known_answers, tokens=tokens)
    maker.ask([each for each in asked if each.role != "ordinary"])
    made = [(each, *(maker.kept(each) if each.role == "ordinary" else maker.choices(each))) for each in asked]
    for each, texts, facts in made:
        if each.role != "over-refused" and len(texts) < LEAST[each.part]:
            raise _too_few(facts, known_answers)
    over = [len(texts) >= LEAST["validation"] for each, texts, _ in made if each.role == "over-refused"]
    if over and not all(over):
        # In one part alone it would be an objective there, and none in the other.
        left = " and ".join(f"{facts.kept} for {each.part}" for each, _, facts in made if each.role == "over-refused")
        warnings.append(f"too few harmless prompts are refused and could be answered ({left}): they are left out")

    def part(name: Part) -> Texts:
        by_role = {each.role: texts for each, texts, _ in made if each.part == name}
        return Texts(
            refused=tuple(each for each in by_role["refused"] if isinstance(each, Choice)),
            ordinary=tuple(each for each in by_role["ordinary"] if isinstance(each, Kept)),
            over_refused=tuple(
                each for each in by_role.get("over-refused", ()) if isinstance(each, Choice) and all(over)
            ),
        )

    return MadeTexts(
        training=part("training"),
        validation=part("validation"),
        facts=tuple(facts for _, _, facts in made),
        warnings=tuple(warnings),
    )


def new_refusals(
    speaker: Speaker,
    point: Point,
    choices: Sequence[Choice],
    *,
    tokens: int = KEPT_TOKENS,
    description: str | None = None,
) -> list[Choice | None]:
    """By prompt, what the model still refuses under an edit, in the words that it has then, against the same answer.

    So an edit that only made the first refusals unlikely is scored on what takes their place. None where the model does
    not refuse, or begins as the answer does.

    Args:
        speaker: the model, without hooks, and its judge.
    """
    behind = len(speaker.chat.opening)
    asked = [each.asked[: len(each.asked) - behind] for each in choices]
    with hooked(speaker.model.model, point.variant(speaker.model).hooks):
        said = speaker.spoken(asked, [each.text for each in choices], opened=True, description=description)
    return [
        Choice.of(
            each.asked,
            each.text,
            refusal=generation.tokens,
            answer=each.whole_answer,
            known=each.known,
            tokens=tokens,
        )
        if answer.refused
        else None
        for each, (generation, answer) in zip(choices, said, strict=True)
    ]


_Said = tuple[Generation, JudgedAnswer]


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """The prompts of one set and part, with the model's own answers."""

    role: Role
    part: Part
    name: str
    prompts: PromptSet
    own: Sequence[_Said] = ()

    @property
    def verdicts(self) -> dict[str, int]:
        """How many of the model's own answers are of each kind that there is."""
        return dict(sorted(Counter(answer.verdict.value for _, answer in self.own).items()))


class _Answers:
    """What the model said to prompts as it is and under edits, each asked once."""

    def __init__(self, speaker: Speaker) -> None:
        self.speaker = speaker
        self._said: dict[tuple[str | None, str], _Said] = {}

    def ask(self, point: Point | None, prompts: Sequence[str]) -> None:
        """Have the model answer prompts."""
        name = None if point is None else point.digest
        new = [text for text in dict.fromkeys(prompts) if (name, text) not in self._said]
        if not new:
            return
        chat, model = self.speaker.chat, self.speaker.model
        with hooked(model.model, [] if point is None else point.variant(model).hooks):
            said = self.speaker.spoken(
                [chat.encode(text) for text in new],
                new,
                opened=True,
                description="the model's own answers" if point is None else "answers under the ablation",
            )
        self._said |= {(name, text): each for text, each in zip(new, said, strict=True)}

    def of(self, point: Point | None, prompts: Sequence[str]) -> list[_Said]:
        """The answers to prompts that were asked."""
        return [self._said[None if point is None else point.digest, text] for text in prompts]

    def find(self, point: Point, prompt: str) -> _Said | None:
        """The answer to a prompt under an edit, if it was asked."""
        return self._said.get((point.digest, prompt))


@dataclass(frozen=True, kw_only=True)
class _Maker:
    """What makes texts of answers.

    Attributes:
        answers: the model's own to all prompts, and those under edits.
        plain: the full ablation.
        known_answers, tokens: as in `made_texts`.
    """

    answers: _Answers
    plain: Point
    known_answers: bool
    tokens: int

    @property
    def edits(self) -> dict[str, Point]:
        """By name, the edits under which answers are looked for, the best first."""
        strengths = Strengths.flat(self.plain.strengths.n_layers, STRONGER)
        return {"plain": self.plain, "stronger": replace(self.plain, strengths=strengths)}

    def ask(self, sets: "Sequence[_Asked]") -> None:
        """Have the model answer what it refused, under each edit what it did not answer under the one before."""
        left = [
            prompt
            for each in sets
            for row, prompt in enumerate(each.prompts.prompts)
            if each.own[row][1].refused and self._known(each, row) is None
        ]
        for point in self.edits.values():
            self.answers.ask(point, left)
            said = self.answers.of(point, left)
            left = [prompt for prompt, (_, answer) in zip(left, said, strict=True) if not _answered(answer)]

    def kept(self, asked: _Asked) -> tuple[list[Kept], PartFacts]:
        """The texts of ordinary prompts: those that are answered."""
        rows = [row for row, (_, answer) in enumerate(asked.own) if _answered(answer)]
        texts = [
            Kept(
                prompt=tuple(self._opened(asked.prompts.prompts[row])),
                text=asked.prompts.prompts[row],
                answer=asked.own[row][0].tokens[: self.tokens],
                known=asked.prompts.answers[row],
            )
            for row in rows
        ]
        thoughts = sum(asked.own[row][1].thought for row in rows)
        return texts, _facts(asked, kept=len(texts), thoughts=thoughts)

    def choices(self, asked: _Asked) -> tuple[list[Choice], PartFacts]:
        """The texts of prompts that are refused: each with an answer where there is one."""
        texts: list[Choice] = []
        counts: Counter[str] = Counter()
        for row, (generation, answer) in enumerate(asked.own):
            if not answer.refused:
                continue
            prompt, known = asked.prompts.prompts[row], asked.prompts.answers[row]
            found = self._answer(asked, row)
            if found is None:
                counts["unanswered"] += 1
                continue
            made = Choice.of(
                self._opened(prompt),
                prompt,
                refusal=generation.tokens,
                answer=found[1],
                known=known,
                tokens=self.tokens,
            )
            if made is None:
                counts["alike"] += 1
                continue
            texts.append(made)
            counts[found[0]] += 1
            counts["thoughts"] += answer.thought
        return texts, _facts(asked, kept=len(texts), **counts)

    def _answer(self, asked: _Asked, row: int) -> tuple[str, Sequence[int]] | None:
        """An answer to a refused prompt, with where it is from; None where there is none."""
        known = self._known(asked, row)
        if known is not None:
            return "known", known
        for name, point in self.edits.items():
            said = self.answers.find(point, asked.prompts.prompts[row])
            if said is not None and _answered(said[1]):
                return name, said[0].tokens
        return None

    def _known(self, asked: _Asked, row: int) -> list[int] | None:
        """The tokens of a prompt's known answer behind the opening; None where it is not to be taken."""
        text = asked.prompts.answers[row]
        if not self.known_answers or text is None:
            return None
        chat, said = self.answers.speaker.chat, asked.own[row][0].tokens
        tokens, opening = chat.answer_tokens(text), list(chat.opening)
        if opening and tokens[: len(opening)] == opening:
            tokens = tokens[len(opening) :]
        # A template may put an empty thought before an answer.
        return [*said[: _behind_thought(chat, said)], *tokens[_behind_thought(chat, tokens, opened=False) :]]

    def _opened(self, prompt: str) -> list[int]:
        return self.answers.speaker.chat.encode_opened(prompt)


def _behind_thought(chat: ChatFormat, tokens: Sequence[int], *, opened: bool = True) -> int:
    """How many of an answer's first tokens belong to its thought; 0 where it has none.

    Args:
        opened: whether the answer begins within a thought where the prompts do.
    """

    def thinking(count: int) -> Thinking | None:
        text = answer_text(chat, tokens[:count], False)[0]
        return split_thought(text, opened=opened and chat.opens_thought and not chat.opening)

    if thinking(len(tokens)) is None:
        return 0
    for count in range(1, len(tokens) + 1):
        found = thinking(count)
        if found is not None and found.answer is not None and found.answer.strip():
            return count - 1
    return len(tokens)


def _answered(answer: JudgedAnswer) -> bool:
    return answer.verdict is Verdict.ANSWERED


def _facts(asked: _Asked, *, kept: int, **counts: int) -> PartFacts:
    return PartFacts(
        role=asked.role, part=asked.part, name=public_name(asked.name), verdicts=asked.verdicts, kept=kept, **counts
    )


def _drawn(
    prompts: SearchPrompts, n_train: int, n_validation: int, seed: int, warn: Callable[[str], None]
) -> list[_Asked]:
    found = []
    for role, (some, held) in prompts.roles.items():
        train, validation = draw_prompts(
            role, some, held, n_train=n_train, n_validation=n_validation, seed=seed, warn=warn
        )
        found += [
            _Asked(role=role, part="training", name=some.name, prompts=train),
            _Asked(role=role, part="validation", name=(held or some).name, prompts=validation),
        ]
    return found


def _too_few(facts: PartFacts, known_answers: bool) -> UsageError:
    """The error that too few prompts of a set and part have texts."""
    refused = facts.role == "refused"
    count = facts.verdicts.get((Verdict.REFUSED if refused else Verdict.ANSWERED).value, 0)
    reasons = [f"the model {'refuses' if refused else 'answers'} {count} of {facts.drawn}"]
    options = ["n_train" if facts.part == "training" else "n_validation"]
    advice = f"give other prompts or more (`{options[0]}`)"
    if facts.unanswered:
        reasons.append(f"{facts.unanswered} of these are not answered under the ablation either")
        if not known_answers:
            advice += ", or answers of your own in the set's column `answer` (`known_answers=True`)"
            options.append("known_answers")
    if facts.alike:
        reasons.append(f"{facts.alike} answers are the refusal's words")
    undecided = facts.verdicts.get(Verdict.UNDECIDED.value, 0)
    if undecided:
        reasons.append(f"{undecided} answers were cut before a decision")
        advice += ", or judge longer answers (the first of `lengths`)"
        options.append("lengths")
    return UsageError(
        f"{facts.role} prompts {facts.name}: {', '.join(reasons)}, so that {facts.kept} are left for {facts.part} and "
        f"{LEAST[facts.part]} are needed; {advice}",
        option=options,
    )
