"""The prompts that directions are trained and validated on, drawn by seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from weight_edit.errors import UsageError
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet, public_name

MIN_TRAIN, MIN_VALIDATION = 8, 4

MOST_MORE = 64
"""Further prompts of each set that candidates are measured on where no number is given."""


def more_prompts(n_more: int | None, n_train: int) -> int:
    """How many further prompts of each set are drawn: `n_more`; as many as train, 64 at most, where that is None.

    Who trains on few wants it to be quick: ten candidates on 64 more prompts of each set would take most of the time.
    """
    return min(MOST_MORE, n_train) if n_more is None else n_more


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One class of prompts.

    Attributes:
        role: "target", "baseline" or "protected".
        name, sha256: of the set that the training prompts come from.
        held_name, held_sha256: of the set that the validation prompts come from, which may be the same.
        train, validation: token ids of the prompts in use.
        sizes: how many there were before filtering: training, validation.
        source, held_source: where these sets are from, of public ones, see `PromptSet`.
        texts, held_texts: the texts of `train` and `validation`, for judges of answers; empty where nobody asks any.
        more, more_texts: further validation prompts, for candidates that cannot be told apart on those above.
        undrawn: how many there would be, at most.
    """

    role: str
    name: str
    sha256: str
    held_name: str
    held_sha256: str
    train: list[list[int]]
    validation: list[list[int]]
    sizes: tuple[int, int]
    source: Mapping[str, str] = field(default_factory=dict)
    held_source: Mapping[str, str] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    held_texts: tuple[str, ...] = ()
    more: list[list[int]] = field(default_factory=list)
    more_texts: tuple[str, ...] = ()
    undrawn: int = 0

    def keep(self, train: Sequence[bool], validation: Sequence[bool], why: str, hint: str = "") -> "Sample":
        """The sample with only the marked prompts.

        Args:
            hint: what else the error should say.

        Raises:
            UsageError: too few remain; with the figures and `why` the others were dropped.
        """
        kept_train = [ids for ids, keep in zip(self.train, train, strict=True) if keep]
        kept_validation = [ids for ids, keep in zip(self.validation, validation, strict=True) if keep]
        if len(kept_train) < MIN_TRAIN or len(kept_validation) < MIN_VALIDATION:
            raise UsageError(
                f"{self.role} prompts {self.name}: the model {why} only "
                f"{len(kept_train)} of {len(self.train)} for training and "
                f"{len(kept_validation)} of {len(self.validation)} for validation, but "
                f"{MIN_TRAIN} and {MIN_VALIDATION} are needed{hint}; give other prompts or more, or pass "
                "`filter_prompts=none` (in a recipe, filter_prompts: none)",
                option=("filter_prompts", "max_new_tokens"),
            )
        return replace(
            self,
            train=kept_train,
            validation=kept_validation,
            texts=marked(self.texts, train),
            held_texts=marked(self.held_texts, validation),
        )

    def to_dict(self) -> dict[str, Any]:
        """Name, hash and sizes, without the prompts."""
        return {
            "name": public_name(self.name),
            "sha256": self.sha256,
            "validation_name": self.held_name and public_name(self.held_name),
            "validation_sha256": self.held_sha256,
            "train": self.sizes[0],
            "validation": self.sizes[1],
            "train_kept": len(self.train),
            "validation_kept": len(self.validation),
            **({"source": dict(self.source)} if self.source else {}),
            **({"validation_source": dict(self.held_source)} if self.held_source else {}),
        }


def draw(
    role: str,
    prompts: PromptSet,
    validation: PromptSet | None,
    chat_format: ChatFormat,
    *,
    n_train: int,
    n_validation: int,
    seed: int,
    warn: Callable[[str], None],
    n_more: int = 0,
) -> Sample:
    """Draw training and validation prompts by seed and encode them.

    Without a validation set, `prompts` is split disjointly; where it is too small for both numbers, four
    fifths train and one fifth validates. `n_more` further validation prompts, or as many as there are, are drawn of
    what is left.

    Raises:
        UsageError: fewer than 8 training or 4 validation prompts.
    """
    train, held = draw_prompts(
        role, prompts, validation, n_train=n_train, n_validation=n_validation, seed=seed, warn=warn
    )
    left = _undrawn(prompts, validation, len(train), len(held), seed)
    more = left[:n_more]
    return Sample(
        role=role,
        name=prompts.name,
        sha256=prompts.sha256,
        held_name=(validation or prompts).name,
        held_sha256=(validation or prompts).sha256,
        train=[chat_format.encode(prompt) for prompt in train.prompts],
        validation=[chat_format.encode(prompt) for prompt in held.prompts],
        sizes=(len(train), len(held)),
        source=prompts.source,
        held_source=(validation or prompts).source,
        texts=train.prompts,
        held_texts=held.prompts,
        more=[chat_format.encode(prompt) for prompt in more],
        more_texts=more,
        undrawn=len(left),
    )


def _undrawn(prompts: PromptSet, validation: PromptSet | None, n_train: int, n_held: int, seed: int) -> tuple[str, ...]:
    """What was not drawn of the validation set, or without one of the set itself, in an order drawn by seed."""
    drawn = n_held if validation is not None else n_train + n_held
    source = prompts if validation is None else validation
    # One part for each prompt: their order is that in which a split draws, whatever the sizes behind.
    parts = source.split((drawn, *[1] * (len(source) - drawn)), seed)
    return tuple(part.prompts[0] for part in parts[1:])


def marked(texts: tuple[str, ...], keep: Sequence[bool]) -> tuple[str, ...]:
    """The texts that are marked; none of none."""
    return tuple(text for text, kept in zip(texts, keep, strict=True) if kept) if texts else ()


def draw_prompts(
    role: str,
    prompts: PromptSet,
    validation: PromptSet | None,
    *,
    n_train: int,
    n_validation: int,
    seed: int = 0,
    warn: Callable[[str], None] = lambda line: None,
) -> tuple[PromptSet, PromptSet]:
    """The training and validation prompts as texts, see `draw`; needs no model.

    Raises:
        UsageError: as `draw`.
    """
    if validation is None:
        train, held = _split(role, prompts, n_train=n_train, n_validation=n_validation, seed=seed, warn=warn)
    else:
        train = prompts.take(min(n_train, len(prompts)), seed)
        held = validation.take(min(n_validation, len(validation)), seed)
        shared = len(set(train.prompts) & set(held.prompts))
        if shared:
            warn(f"{shared} {role} prompts are in both the training and the validation set")
    if len(train) < MIN_TRAIN or len(held) < MIN_VALIDATION:
        raise UsageError(
            f"{role} prompts {prompts.name}: {len(train)} for training and {len(held)} for validation "
            f"are too few; at least {MIN_TRAIN} and {MIN_VALIDATION} are needed"
        )
    return train, held


def check_search(
    targets: Sequence[PromptSet],
    baseline: PromptSet,
    protect: Sequence[PromptSet],
    held_targets: Sequence[PromptSet] | None,
    held_baseline: PromptSet | None,
    *,
    n_train: int,
    n_validation: int,
) -> None:
    """Refuse too few prompts, or one set in two roles, before a model is loaded.

    Raises:
        UsageError: as `draw` and `check_distinct`; or several targets and another number of validation sets.
    """
    held: list[PromptSet | None] = list(held_targets) if held_targets else [None] * len(targets)
    if len(held) != len(targets):
        raise UsageError(f"{len(targets)} target sets need as many validation sets, not {len(held)}")
    for some in targets:
        check_distinct(some, baseline, lambda line: None)
    drawn = [
        *(("target", some, kept) for some, kept in zip(targets, held, strict=True)),
        ("baseline", baseline, held_baseline),
        *(("protected", some, None) for some in protect),
    ]
    for role, prompts, validation in drawn:
        draw_prompts(role, prompts, validation, n_train=n_train, n_validation=n_validation)


def check_distinct(target: PromptSet, baseline: PromptSet, warn: Callable[[str], None]) -> None:
    """Refuse equal target and baseline sets, and warn of prompts in both.

    Raises:
        UsageError: the two hold the same prompts.
    """
    shared = set(target.prompts) & set(baseline.prompts)
    if len(shared) == min(len(target), len(baseline)):
        raise UsageError(
            f"all prompts of the smaller of {target.name} and {baseline.name} are in the other too; "
            "target and baseline must differ"
        )
    if shared:
        warn(f"{len(shared)} prompts are both target and baseline")


def _split(
    role: str,
    prompts: PromptSet,
    n_train: int,
    n_validation: int,
    seed: int,
    warn: Callable[[str], None],
) -> tuple[PromptSet, PromptSet]:
    if len(prompts) < n_train + n_validation:
        few = max(MIN_VALIDATION, len(prompts) // 5)
        sizes = (max(0, len(prompts) - few), min(few, len(prompts)))
        warn(
            f"{role} prompts {prompts.name}: {len(prompts)} are fewer than {n_train} + {n_validation}; "
            f"{sizes[0]} train and {sizes[1]} validate"
        )
    else:
        sizes = (n_train, n_validation)
    train, held = prompts.split(sizes, seed)
    return train, held
