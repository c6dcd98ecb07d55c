"""Guard models as data: what a guard is given, and how what it says becomes a verdict."""

import re
from typing import Annotated, Literal

from pydantic import Field

from weight_edit.errors import UsageError
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.utils.settings import Section


class Band(Section):
    """A range of a score, from the end of the band before.

    Attributes:
        below: where it ends.
        verdict: of scores in it.
    """

    below: float
    verdict: Verdict


class Guard(Section):
    """A guard model and the way in which it is used.

    Attributes:
        source: where its prompt and labels are published.
        licence: of the model.
        paper: its arXiv id.
        model: its Hub id; None is what the user names.
        adapter: the Hub id of a LoRA adapter of `model`, where the guard is published as one.
        kind: "labels", a sequence-classification model; "text", a model that writes its label; "scale", a model whose
            probabilities of the next token are a grade.
        prompt: the text that it reads, with `{request}` and `{answer}`. None is, of labels, the answer alone, and of
            the others the tokenizer's chat template on a user's and an assistant's message.
        pattern: of text, a regular expression whose group `label` is the label; case does not matter.
        verdicts: label to verdict.
        max_new_tokens: of text, the limit on what it writes.
        answer_tokens: so many tokens of an answer are read; None is all.
        keep: which of them, those at its "begin" or at its "end".
        max_length: of labels, the most tokens of a text; None is the tokenizer's own limit.
        tokens: of a scale, the tokens of its grades, in order: the first is 0, the last 1.
        bands: of a scale, in order.
    """

    source: str
    licence: str | None = None
    paper: str | None = None
    model: str | None = None
    adapter: str | None = None
    kind: Literal["labels", "text", "scale"]
    prompt: str | None = None
    pattern: str = r"\s*(?P<label>[\w/-]+)"
    verdicts: dict[str, Verdict] | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] = 16
    answer_tokens: Annotated[int, Field(ge=1)] | None = None
    keep: Literal["begin", "end"] = "begin"
    max_length: Annotated[int, Field(ge=1)] | None = None
    tokens: list[str] | None = None
    bands: list[Band] | None = None

    @property
    def needs_request(self) -> bool:
        """Whether it reads the request, too."""
        return "{request}" in self.prompt if self.prompt is not None else self.kind != "labels"

    def label_in(self, said: str) -> str | None:
        """The label in what a guard writes; None where there is none that is known.

        Raises:
            UsageError: the pattern is no regular expression, or has no group `label`.
        """
        try:
            found = re.match(self.pattern, said, re.IGNORECASE)
            label = None if found is None else found["label"]
        except (re.error, IndexError) as error:
            raise UsageError(f"guard of {self.source}: 'pattern' has no group 'label' or is wrong: {error}") from None
        return next(
            (one for one in self.verdicts or {} if label is not None and one.casefold() == label.casefold()), None
        )


def verdict_of(guard: Guard, label: str) -> Verdict:
    """The verdict of a label: as the guard's data say, else the label itself.

    Raises:
        UsageError: it is none of those, and no verdict's name.
    """
    known = {one.casefold(): verdict for one, verdict in (guard.verdicts or {}).items()}
    try:
        return known.get(label.casefold()) or Verdict(label.casefold())
    except ValueError:
        raise UsageError(
            f"the label {label!r} of {guard.model} stands for no verdict; say which in the setting verdicts"
        ) from None


def verdict_of_score(guard: Guard, score: float) -> Verdict:
    """The verdict of a grade between 0 and 1; the last band's where it is beyond all."""
    bands = guard.bands or [Band(below=0.5, verdict=Verdict.REFUSED), Band(below=2, verdict=Verdict.ANSWERED)]
    return next((band.verdict for band in bands if score < band.below), bands[-1].verdict)
