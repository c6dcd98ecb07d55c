"""What the models of an evaluation are asked: the same of a base and of its edit."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from weight_edit.errors import UsageError
from weight_edit.evaluation.lengths import answer_lengths, longest
from weight_edit.evaluation.registry import DEFAULT_JUDGES, JudgeSpec, judge_specs
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet

SETS = ("refused", "answered", "over_refused", "harmless_looking")
"""The prompt sets of an evaluation."""

KL_TOKENS = 16
"""The tokens of the base's continuation over which the divergence is measured, where nothing is said."""


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Prompt sets and settings of an evaluation.

    Attributes:
        sets: by their role, see `SETS`; at least one, or a text set.
        text: texts that are read and not answered.
        max_new_tokens: the limit on an answer's length.
        lengths: shorter limits at which answers are judged, too.
        judges: the first one decides.
        kl_tokens: of the base's continuation.
        compared: two models are asked, so that a server names first tokens with its answers.
    """

    sets: Mapping[str, PromptSet]
    text: PromptSet | None = None
    max_new_tokens: int
    lengths: tuple[int, ...] = ()
    judges: tuple[JudgeSpec, ...] = field(default_factory=lambda: judge_specs(DEFAULT_JUDGES))
    kl_tokens: int = KL_TOKENS
    compared: bool = False

    @property
    def answered(self) -> PromptSet | None:
        """The ordinary requests, on which divergences are measured."""
        return self.sets.get("answered")

    @property
    def prompts(self) -> list[str]:
        """Every prompt once, whatever sets it is in."""
        return list(dict.fromkeys(prompt for some in self.sets.values() for prompt in some.prompts))


def questions_of(
    sets: Mapping[str, PromptSet | str | Path | None],
    *,
    text: PromptSet | str | Path | None = None,
    limit: int | None = None,
    max_new_tokens: int | None = None,
    lengths: str | Iterable[int] | None = None,
    judges: str | JudgeSpec | Sequence[str | JudgeSpec] = DEFAULT_JUDGES,
    kl_tokens: int = KL_TOKENS,
    compared: bool = False,
) -> Questions:
    """The questions of an evaluation, read and checked; no model is needed, nor torch.

    Args:
        sets, text: what `load_prompts` takes; None is not asked.
        limit: at most so many of each set.
        max_new_tokens, lengths, judges, kl_tokens: as in `evaluate`.

    Raises:
        UsageError: no set, an empty one, or a wrong setting.
    """
    specs = judge_specs(judges)
    found = answer_lengths(lengths)
    most = longest(max_new_tokens, found)
    if kl_tokens < 1:
        raise UsageError(f"`kl_tokens={kl_tokens}`: it must be at least 1", option="kl_tokens")
    given = {name: load_prompts(prompts) for name, prompts in sets.items() if prompts is not None}
    texts = None if text is None else load_prompts(text)
    if not given and texts is None:
        names = ", ".join(f"`{name}`" for name in sets)
        raise UsageError(f"nothing to evaluate on; give at least one of {names}", option=tuple(sets))
    for name, prompts in given.items():
        if len(prompts) == 0:
            raise UsageError(
                f"`{name}` {prompts.name}: a rate over zero prompts is unknown; give at least one", option=name
            )
    if texts is not None and len(texts) == 0:
        raise UsageError(f"`text` {texts.name}: a loss over zero texts is unknown; give at least one", option="text")
    return Questions(
        sets={name: prompts.at_most(limit) for name, prompts in given.items()},
        text=None if texts is None else texts.at_most(limit),
        max_new_tokens=most,
        lengths=found,
        judges=specs,
        kl_tokens=kl_tokens,
        compared=compared,
    )


def compared(questions: Questions) -> Questions:
    """The same questions, of two models."""
    return replace(questions, compared=True)
