"""A request for a search: prompts read and settings checked before torch is imported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from weight_edit.directions.names import check_answering, check_method, check_positions, present_filter
from weight_edit.directions.samples import check_search, more_prompts
from weight_edit.directions.selection import SelectionRule
from weight_edit.errors import UsageError
from weight_edit.evaluation.registry import DEFAULT_JUDGES, JudgeSpec
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet
from weight_edit.utils.seeds import check_seed

LEAST_CONFIRMED = 7
"""Prompts that a confirmation takes: of fewer, not even all can tell a difference where three candidates are tested."""


def check_batch_size(batch_size: int | None) -> None:
    """Refuse fewer than one prompt at a time, before a model is loaded.

    Raises:
        UsageError: with the number.
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"`batch_size={batch_size}`: must be at least 1", option="batch_size")


@dataclass(frozen=True, kw_only=True)
class FindRequest:
    """The prompts and settings of a `find_directions` call, with the same names and defaults."""

    target: tuple[PromptSet, ...]
    baseline: PromptSet
    protect: tuple[PromptSet, ...] = ()
    validation_target: tuple[PromptSet, ...] = ()
    validation_baseline: PromptSet | None = None
    n_train: int = 128
    n_validation: int = 32
    method: str = "mean-difference"
    options: Mapping[str, Any] = field(default_factory=dict)
    positions: str = "template"
    refusal_tokens: Sequence[int | str] | None = None
    rule: SelectionRule = field(default_factory=SelectionRule)
    filter_prompts: str | bool = "auto"
    best_effort: bool = False
    seed: int = 0
    tokens_from: str = "answers"
    judge: JudgeSpec | str = DEFAULT_JUDGES[0]
    n_answers: int = 32
    max_new_tokens: int = 32
    n_more: int | None = None
    confirm: int | None = None
    confirm_by: str = "ablate"

    def __post_init__(self) -> None:
        object.__setattr__(self, "filter_prompts", present_filter(self.filter_prompts))
        check_answering(str(self.filter_prompts), self.tokens_from, self.confirm_by)
        for name, least in (
            ("n_answers", 1),
            ("max_new_tokens", 1),
            ("n_more", 0),
            ("confirm", LEAST_CONFIRMED),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"`{name}={value}`: must be at least {least}", option=name)
        judge = self.judge
        object.__setattr__(self, "judge", JudgeSpec.parse(judge) if isinstance(judge, str) else judge)

    @property
    def spec(self) -> JudgeSpec:
        """The judge of answers."""
        assert isinstance(self.judge, JudgeSpec)
        return self.judge

    @property
    def more(self) -> int:
        """How many further prompts of each set candidates that cannot be told apart are measured on, at most."""
        return more_prompts(self.n_more, self.n_train)

    def filter(self, without_tokens: bool) -> str:
        """By what prompts are left out: "answers", "first-token" or "none".

        Args:
            without_tokens: the choice needs no refusal tokens, so that there are none to filter by.
        """
        if self.filter_prompts == "answers":
            return "answers"
        if without_tokens or self.filter_prompts == "none":
            return "none"
        heard = self.filter_prompts == "auto" and self.refusal_tokens is None and self.tokens_from == "answers"
        return "answers" if heard else "first-token"

    @classmethod
    def read(
        cls,
        *,
        target: str | Sequence[str],
        baseline: str,
        protect: str | Sequence[str] | None = None,
        validation_target: str | Sequence[str] | None = None,
        validation_baseline: str | None = None,
        **settings: Any,
    ) -> "FindRequest":
        """The request whose prompt sets are read as `load_prompts` reads them.

        Args:
            target, baseline, protect, validation_target, validation_baseline: prompt sets by name or file; several
                targets, and one set to score candidates on for each of them, where there are any.
            settings: the other fields.

        Raises:
            UsageError: prompts that cannot be read, are too few or the same in two roles; or a method, a word for
                positions or a seed that there is not.
        """
        # What is a typo needs no prompts from the Hub.
        check_seed(settings.get("seed", cls.seed))
        check_method(settings.get("method", cls.method))
        check_positions(settings.get("positions", cls.positions))
        request = cls(
            target=_sets(target),
            baseline=load_prompts(baseline),
            protect=_sets(protect),
            validation_target=_sets(validation_target),
            validation_baseline=None if validation_baseline is None else load_prompts(validation_baseline),
            **settings,
        )
        check_search(
            request.target,
            request.baseline,
            request.protect,
            request.validation_target,
            request.validation_baseline,
            n_train=request.n_train,
            n_validation=request.n_validation,
        )
        return request

    @property
    def sets(self) -> list[PromptSet | None]:
        """Every set, by its role in the order of the fields."""
        return [*self.target, self.baseline, *self.protect, *self.validation_target, self.validation_baseline]


def _sets(specs: str | Sequence[str] | None) -> tuple[PromptSet, ...]:
    return tuple(load_prompts(spec) for spec in ([specs] if isinstance(specs, str) else specs or ()))
