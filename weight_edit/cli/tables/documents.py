"""Types of the JSON documents that tables read.

Results are shown from what `run.json` keeps, as on the day they were made.

Each type has the entries that are shown; a document may have more.
"""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict


class Rate(TypedDict):
    """A share of answers, with its interval."""

    value: float
    low: float
    high: float


class Difference(Rate):
    """A paired difference of two models."""

    p: float


class Compared(Difference):
    """A paired difference that says whether it can be told."""

    told: bool


class RoundingDocument(TypedDict):
    """What storing one edited tensor in its quantised format did, see `RoundingLoss`."""

    format: str
    kept: float
    left: float
    error: float
    rescaled: int


class AtLengthDocument(TypedDict):
    """The verdicts on the first tokens of the answers to one prompt set."""

    refusal: Rate
    verdicts: Mapping[str, int]


class SetDocument(TypedDict):
    """The results of one prompt set."""

    refusal: Rate
    categories: Mapping[str, Rate]
    lengths: NotRequired[Mapping[str, AtLengthDocument]]
    style: NotRequired[Mapping[str, Rate]]


class SetDifferences(TypedDict, total=False):
    """The differences from the base on one prompt set."""

    lengths: Mapping[str, Difference]
    style: Mapping[str, Compared]


class DivergenceDocument(TypedDict):
    """A divergence from the base, over prompts; an interval needs three of them."""

    mean: float
    low: float | None
    high: float | None


class ContinuationDocument(DivergenceDocument):
    """The divergence over the base's own answers."""

    tokens: int
    per_position: list[float]
    counts: list[int]
    per_prompt: list[float]


class MeanDocument(DivergenceDocument):
    """A divergence from the base over some of the prompts."""

    count: int


class LossDocument(TypedDict):
    """A cross-entropy in nats per token."""

    mean: float
    low: float | None
    high: float | None
    perplexity: float | None
    tokens: int


class LossBesideDocument(LossDocument):
    """A cross-entropy beside the base's on the same texts."""

    base: NotRequired[LossDocument]
    difference: NotRequired[Compared | None]


class FourClassesDocument(TypedDict):
    """`FourClasses.to_dict()`; rates are None where a class has no prompt."""

    paper: str
    of_each: int
    missing: Mapping[str, int]
    accuracy: Rate | None
    refusal_rate: Rate | None
    over_refusal_rate: Rate | None


class EvaluationDocument(TypedDict, total=False):
    """`Evaluation.to_dict()`; empty in a run without sets to measure on."""

    model: str
    judge: str
    max_new_tokens: int
    sets: Mapping[str, SetDocument]
    notes: list[str]
    divergence: DivergenceDocument | None
    continuation: ContinuationDocument
    continuation_by_base: Mapping[str, MeanDocument]
    own_answers: LossBesideDocument
    text: LossBesideDocument
    base: "EvaluationDocument | None"
    differences: Mapping[str, SetDifferences]
    four_classes: "FourClassesDocument"


class MetricDocument(TypedDict):
    """A metric of a task of lm-eval."""

    value: float
    low: float | None
    high: float | None
    count: int
    higher_is_better: bool | None


class MetricDifferenceDocument(Rate):
    """The difference of two models in a metric of lm-eval."""

    p_holm: float
    paired: bool


class TasksDocument(TypedDict):
    """The benchmarks of one model, by task and metric."""

    model: str
    tasks: Mapping[str, Mapping[str, MetricDocument]]


class HarnessDocument(TasksDocument):
    """`HarnessComparison.to_dict()`."""

    lm_eval_version: str
    base: NotRequired[TasksDocument]
    differences: NotRequired[Mapping[str, Mapping[str, MetricDifferenceDocument]]]


class AnswerDocument(TypedDict):
    """A line of a file of answers."""

    set: str
    prompt: str
    answer: str
    verdict: str
    category: str | None


class ScoreDocument(TypedDict):
    """A candidate's place and scores; None where the model gave no numbers, or a stage before rejected it."""

    layer: int | None
    position: int | None
    bypass: float | None
    induce: float | None
    kl: float | None
    rejected: NotRequired[str | None]
    stage: NotRequired[str | None]
    intervals: NotRequired[Mapping[str, list[float]]]
    prompts: NotRequired[int]
    untold_bounds: NotRequired[list[str]]


class TokenDocument(TypedDict):
    """A refusal token."""

    id: int
    text: str
    opens: NotRequired[Mapping[str, int]]


class DirectionDocument(TypedDict):
    """A run's entry for the direction it found."""

    method: str
    layer: int | None
    position: int | None
    refusal_tokens: list[TokenDocument]
    bypass: float | None
    induce: float | None
    kl: float
    candidates: int
    kept_bounds: int
    warnings: list[str]
    confirmation: NotRequired["ConfirmationDocument | None"]


class EffectDocument(TypedDict):
    """`Effect.to_dict()`."""

    verdict: str
    finding: str
    hint: str


class RuleDocument(TypedDict, total=False):
    """The selection rule; files of earlier versions call `select` `by`."""

    select: str | None
    by: str | None


class CertaintyDocument(TypedDict):
    """How sure a choice is."""

    ties: list[Mapping[str, Any]]
    compared: int | None


class ConfirmedDocument(TypedDict):
    """A candidate of a confirmation."""

    layer: int | None
    position: int | None
    refusal: "Rate"
    verdicts: Mapping[str, int]
    difference: Mapping[str, Any]
    works: bool
    taken: bool


class BaseDocument(TypedDict):
    """The unedited model of a confirmation."""

    refusal: "Rate"
    verdicts: Mapping[str, int]


class ConfirmationDocument(TypedDict):
    """Judged answers under the edits of the best candidates."""

    by: str
    judge: str
    count: int
    base: BaseDocument
    candidates: list[ConfirmedDocument]


class DirectionsDocument(TypedDict, total=False):
    """The metadata of a directions file."""

    model: str
    method: str
    layer: int | None
    position: int | None
    rule: RuleDocument
    scores: list[ScoreDocument]
    control: ScoreDocument | None
    warnings: list[str]
    refusal_tokens: list[TokenDocument]
    tokens_from: str | None
    answers: Mapping[str, Any] | None
    certainty: "CertaintyDocument"
    confirmation: "ConfirmationDocument | None"


class StudyDocument(TypedDict):
    """A study of a run; its other figures are numbers and words by their names."""

    kind: str
    title: str
    folder: str
    rows: NotRequired[list[Mapping[str, object]]]


class IntegrityDocument(TypedDict):
    """The comparison of the files with the base's."""

    tensors_equal: int
    files_equal: int
    problems: list[str]


class EditDocument(TypedDict):
    """The edit that was checked, a line for each step."""

    steps: list[str]
    embeddings: str


class EditedTensorsDocument(TypedDict):
    """The comparison of the edited tensors with the edit applied again."""

    compared: int
    different: list[str]
    bit_for_bit: int
    entries_rounded_otherwise: int
    rounding: float | None


class GapDocument(TypedDict):
    """The differences between two passes."""

    largest: float
    kl: float
    scale: float
    argmax: float


class NoiseDocument(TypedDict):
    """The differences of the base from itself."""

    dtype: str
    float32_against_storage: GapDocument
    float32_against_storage_hooked: GapDocument
    rounded_weights_hooked: GapDocument
    padded_against_alone: GapDocument
    leak_of_hooked_base: float


class PrecisionDocument(TypedDict):
    """The model checks in one dtype."""

    leak: float
    leak_before: float
    hook_against_weights: GapDocument
    tied_unembedding: GapDocument | None
    allowed: NotRequired[Mapping[str, float] | None]
    published_hook_against_weights: NotRequired[GapDocument | None]


class VerificationDocument(TypedDict):
    """`Verification.to_dict()`; runs of version 0.1.0 lack the optional entries."""

    integrity: bool
    integrity_report: IntegrityDocument
    complete: bool
    left_in_weights: float | None
    by_dtype: Mapping[str, PrecisionDocument]
    problems: list[str]
    edit: NotRequired[EditDocument | None]
    left_in_weights_before_rounding: NotRequired[float | None]
    edited_tensors: NotRequired[EditedTensorsDocument | None]
    noise: NotRequired[NoiseDocument | None]
    weights_only: NotRequired[bool]
    recorded_not_measured: NotRequired[list[str]]


class PullRequestDocument(TypedDict):
    """A pull request that was opened."""

    number: int
    url: str


class PushDocument(TypedDict):
    """The push at the end of a run; without `push` where the recipe's would go."""

    pushed: bool
    repo_id: str
    private: bool
    branch: str | None
    create_pr: bool
    sent: list[str]
    url: str
    pull_request: PullRequestDocument | None
