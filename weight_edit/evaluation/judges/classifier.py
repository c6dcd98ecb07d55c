"""The judge `classifier`: a local guard model, with labels of its own or asked as it was trained to be."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from weight_edit.errors import UsageError
from weight_edit.evaluation.guard import Guard, verdict_of, verdict_of_score
from weight_edit.evaluation.judges._answer import judged_by
from weight_edit.evaluation.judges._data import names_in, read_data
from weight_edit.evaluation.registry import Judgement, Reply, judge
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.runtime.options import LoadOptions
from weight_edit.utils.settings import Section


class ClassifierOptions(Section):
    """Settings of the guard model.

    Attributes:
        guard: how it is used: the name of a file in `judges/guards`, or the path of one. None is a
            sequence-classification model whose labels are verdicts or are named in `verdicts`.
        model: its Hub id or folder; the guard's own when absent.
        verdicts: label to verdict, before what the guard's file says.
        device: as in `load`.
        dtype: as in `load`.
        revision: branch, tag or commit of a model from the Hub.
        batch_size: answers at a time, at most; None is as many as memory allows.
    """

    guard: str | None = None
    model: str | None = None
    verdicts: dict[str, Verdict] | None = None
    device: str | None = None
    dtype: str = "auto"
    revision: str | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _names_a_guard(self) -> "ClassifierOptions":
        # Before answers are generated, which takes long.
        chosen_guard(self)
        return self


@judge("classifier")
def classifier(replies: list[Reply], options: ClassifierOptions) -> list[Judgement]:
    """A local guard model through transformers: `guard` (wildguard, llama-guard-3, ...) or `model`."""
    guard = chosen_guard(options)

    def ask(asked: list[Reply]) -> list[Judgement]:
        known = [reply for reply in asked if reply.prompt is not None or not guard.needs_request]
        judgements = iter(_judged(guard, known, options) if known else ())
        unasked = Judgement(verdict=Verdict.UNDECIDED, reason="the guard reads the request too, which is not recorded")
        return [next(judgements) if reply.prompt is not None or not guard.needs_request else unasked for reply in asked]

    return judged_by(ask, replies)


def chosen_guard(options: ClassifierOptions) -> Guard:
    """The guard that the options name, with its model and verdicts as they say.

    Raises:
        UsageError: neither a guard nor a model is named, or the guard's file is wrong.
    """
    if options.guard is None:
        if options.model is None:
            raise UsageError(
                f"judge classifier: name a guard ({', '.join(names_in('guards'))}) or a model, such as "
                "classifier,guard=wildguard"
            )
        guard = Guard(source="options", kind="labels")
    else:
        guard = read_data("guards", options.guard, Guard, "guard")
    model = options.model or guard.model
    if model is None:
        raise UsageError(f"guard {options.guard} names no model; name one, as model=")
    # A model that the user names has its adapter merged into it.
    adapter = guard.adapter if options.model is None else None
    verdicts = {**(guard.verdicts or {}), **(options.verdicts or {})}
    return guard.model_copy(update={"model": model, "adapter": adapter, "verdicts": verdicts})


def _judged(guard: Guard, replies: list[Reply], options: ClassifierOptions) -> list[Judgement]:
    from weight_edit.evaluation.guard_model import answers_of_guard, grades_of_guard, labels_of_guard

    used: dict[str, Any] = {
        "load_options": LoadOptions(dtype=options.dtype, device=options.device, revision=options.revision),
        "batch_size": options.batch_size,
    }
    if guard.kind == "labels":
        labelled = labels_of_guard(guard, replies, **used)
        return [Judgement(verdict=verdict_of(guard, label), reason=label, score=share) for label, share in labelled]
    if guard.kind == "scale":
        grades = grades_of_guard(guard, replies, **used)
        return [Judgement(verdict=verdict_of_score(guard, grade), reason=f"score {grade:.3f}") for grade in grades]
    judgements = []
    for said in answers_of_guard(guard, replies, **used):
        label = guard.label_in(said)
        if label is None:
            first = said.strip().partition("\n")[0]
            judgements.append(Judgement(verdict=Verdict.UNDECIDED, reason=f"unreadable: {first[:60]!r}"))
        else:
            judgements.append(Judgement(verdict=verdict_of(guard, label), reason=label))
    return judgements
