"""The schema of a recipe: one YAML file that says what to find, edit, verify and evaluate.

It is validated before anything runs.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from weight_edit.edits.kernel import Kernels
from weight_edit.edits.registry import edit_kinds
from weight_edit.errors import UsageError
from weight_edit.evaluation.lengths import longest
from weight_edit.evaluation.questions import KL_TOKENS
from weight_edit.evaluation.registry import DEFAULT_JUDGES, JudgeSpec, judge_specs
from weight_edit.hub.destination import Destination
from weight_edit.plan.plan import parse_layers
from weight_edit.recipe.bundled import recipe_file
from weight_edit.recipe.earlier_words import in_present_words
from weight_edit.recipe.file import content_of
from weight_edit.recipe.given_directions import check_given
from weight_edit.recipe.overlays import check_model, laid_over, on_model
from weight_edit.recipe.overrides import override_entry
from weight_edit.recipe.prompt_names import (
    check_names_asked,
    check_names_overridden,
    names_asked,
    names_given,
    with_named_sets,
)
from weight_edit.recipe.tokens import check_no_token
from weight_edit.utils.names import unknown
from weight_edit.utils.registry_listing import canonical, registered
from weight_edit.utils.seeds import LARGEST_SEED
from weight_edit.utils.settings import Section, validated

MAIN = "main"
"""The name of the directions from a recipe's `find`, or of given ones that take its place."""

CONTROL = "random"
"""The name of random directions, among found ones."""

_TAKEN = {MAIN: "the recipe's own 'find'", CONTROL: "the random directions that studies compare with"}

Positive = Annotated[int, Field(gt=0, lt=2**31)]
NoneOrMore = Annotated[int, Field(ge=0, lt=2**31)]
Share = Annotated[float, Field(ge=0, le=1)]


class Find(Section):
    """The search for directions; the defaults are those of arXiv 2406.11717.

    `target` and `baseline` are prompt sets (docs/command-line.md); `validation_*` are what candidates are scored on,
    split off from the former when absent. Several targets make one direction of all of them, or one each, as the
    method says; `protect` are sets whose handling should stay. `options` are the method's, `select` says by what the
    best candidate is chosen (the method's own rule when absent). `refusal_tokens` are ids or strings, found from the
    model's judged answers when absent. With `confirm` the model answers so many validation prompts under the edits of
    the best candidates. The others are the arguments of `find_directions`.
    """

    method: str = "mean-difference"
    options: dict[str, Any] = Field(default_factory=dict)
    target: str | list[str]
    baseline: str
    protect: list[str] = Field(default_factory=list)
    positions: Literal["template", "last", "all"] = "template"
    select: Literal["bypass", "accuracy", "cosmic", "cosmic-released"] | None = None
    validation_target: str | list[str] | None = None
    validation_baseline: str | None = None
    n_train: Positive = 128
    n_validation: Positive = 32
    refusal_tokens: list[int | str] | None = None
    tokens_from: Literal["answers", "difference"] = "answers"
    filter_prompts: Literal["auto", "answers", "first-token", "none"] = "auto"
    judge: str = DEFAULT_JUDGES[0]
    n_answers: Positive = 32
    max_new_tokens: Positive = 32
    n_more: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    confirm: Positive | None = None
    confirm_by: Literal["ablate", "add"] = "ablate"
    max_kl: Annotated[float, Field(gt=0)] | None = 0.1
    min_induce: float | None = 0.0
    max_layer_fraction: Annotated[float, Field(gt=0, le=1)] | None = 0.8
    max_protected_kl: Annotated[float, Field(gt=0)] | None = 0.1
    best_effort: bool = False
    batch_size: Positive | None = None

    @field_validator("method")
    @classmethod
    def _canonical(cls, value: str) -> str:
        # Another name for the same method is no other search: a run would do it again.
        return canonical(value, registered("directions/finders", "finder"))

    @field_validator("filter_prompts", mode="before")
    @classmethod
    def _no_switch(cls, value: Any) -> Any:
        # In earlier versions it was on or off.
        return {True: "first-token", False: "none"}[value] if isinstance(value, bool) else value

    @field_validator("judge")
    @classmethod
    def _known_judge(cls, value: str) -> str:
        try:
            JudgeSpec.parse(value)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return value

    @property
    def rule(self) -> dict[str, Any]:
        """The keyword arguments of `SelectionRule`."""
        bounds = ("max_kl", "min_induce", "max_layer_fraction", "max_protected_kl")
        return {"select": self.select, **{name: getattr(self, name) for name in bounds}}


class EditEntry(Section):
    """One edit of a model.

    `layers` is written as "0-31" or "4,8-12"; all blocks when absent. `at` are blocks at whose inputs the edit is made,
    as a number or a list, or "found": the one where its directions were found.
    `directions` names one of the recipe's `directions` or `finds`; when absent they are "main", those of its `find`.
    `options` are those of the kind.
    """

    kind: str = "ablate"
    strength: float = 1.0
    layers: str | None = None
    directions: str | None = None
    at: list[Annotated[int, Field(ge=0, lt=2**31)]] | Literal["found"] = Field(default_factory=list)
    kernel: Kernels | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in edit_kinds():
            raise ValueError(str(unknown("edit", value, edit_kinds())))
        return value

    @field_validator("strength")
    @classmethod
    def _sensible(cls, value: float, info: ValidationInfo) -> float:
        if info.data.get("kind") != "add" and not 0 < value <= 2:
            raise ValueError("outside of (0, 2]; 1 is the full edit")
        return value

    @field_validator("at", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            value = [value]
        known = isinstance(value, list | tuple) and all(isinstance(n, int) and not isinstance(n, bool) for n in value)
        if value != "found" and not known:
            raise ValueError("write numbers of layers, such as 3 or [3, 4], or found")
        return value

    @field_validator("layers", mode="before")
    @classmethod
    def _readable(cls, value: Any) -> str | None:
        try:
            parse_layers(value)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return None if value is None else str(value)


class EditSection(EditEntry):
    """The edit to bake, with further edits (`then`) composed with it in one pass."""

    embeddings: Literal["both", "untie", "skip"] = "both"
    projector: Literal["edit", "partial", "skip"] = "edit"
    mtp: Literal["edit", "skip"] = "skip"
    dequantize: bool = False
    rounding: Literal["balanced", "nearest"] = "balanced"
    allow_nonfinite: bool = False
    base_model: str | None = None
    then: list[EditEntry] = Field(default_factory=list)

    @field_validator("base_model")
    @classmethod
    def _an_id(cls, value: str | None) -> str | None:
        from weight_edit.hub.base_card import check_id

        try:
            return None if value is None else check_id(value)
        except UsageError as error:
            raise ValueError(str(error)) from error

    @property
    def steps(self) -> list[EditEntry]:
        """All edits, in order."""
        return [self, *self.then]

    @property
    def how(self) -> dict[str, Any]:
        """The options of the edit as a whole, and of its card, under the names that `bake` has."""
        return {name: getattr(self, name) for name in self.of_the_whole()}

    @classmethod
    def of_the_whole(cls) -> list[str]:
        """The names of `how`."""
        return sorted(cls.model_fields.keys() - EditEntry.model_fields.keys() - {"then"})


class Search(Section):
    """The search for the best edit, which the recipe's `edit` then is.

    It begins with what `find` finds; prompts are those of `find`, and `over_refused` are harmless prompts that the
    model refuses. `finders` are further methods whose directions may be taken, with their options; `descent` are the
    settings of descents. `pick` is the rule by which one point of the front is taken. The others are the fields of
    `SearchRequest`. The journal is a file in the run's folder.
    """

    finders: dict[str, dict[str, Any]] = Field(default_factory=dict)
    over_refused: str | None = None
    n_train: Positive = 64
    n_validation: Positive = 64
    tokens: Positive = 12
    trials: NoneOrMore = 96
    generation: Positive = 16
    sampler: Literal["tpe", "cma-es", "nsga-ii", "random"] = "tpe"
    descents: NoneOrMore = 3
    descent: dict[str, Any] = Field(default_factory=dict)
    judged: Positive = 32
    finalists: Positive = 6
    lengths: tuple[Positive, ...] = (64, 128)
    rounds: NoneOrMore = 0
    pick: str = "refusal<=0.05"
    known_answers: bool = True
    batch_size: Positive | None = None

    @field_validator("finders")
    @classmethod
    def _canonical(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        known = registered("directions/finders", "finder")
        return {canonical(name, known): options for name, options in value.items()}


class Verify(Section):
    """The prompts that the models run on for verification."""

    prompts: str = "organism:answered:test"
    limit: Positive = 16


class JudgeEntry(Section):
    """A judge of answers: its kind and settings. The kinds are in `weight_edit/evaluation/judges/`."""

    kind: str
    options: dict[str, Any] = Field(default_factory=dict)


class Evaluate(Section):
    """The prompt sets measured before and after the edit; absent sets are not measured.

    `judges` are names, or kinds with options; the first one decides, and the others' verdicts stand beside its own.
    With `lengths` every answer is also judged cut to its first so many tokens; `max_new_tokens` is the longest of them
    where it is absent. `kl_tokens` of the base's own answers are compared, and `text` is a set of texts to be read.
    """

    refused: str | None = None
    answered: str | None = None
    over_refused: str | None = None
    harmless_looking: str | None = None
    limit: Positive | None = None
    max_new_tokens: Positive = 64
    lengths: tuple[Positive, ...] = ()
    kl_tokens: Positive = KL_TOKENS
    text: str | None = None
    judges: Annotated[tuple[str | JudgeEntry, ...], Field(min_length=1)] = DEFAULT_JUDGES

    @field_validator("judges")
    @classmethod
    def _known(cls, value: tuple[str | JudgeEntry, ...]) -> tuple[str | JudgeEntry, ...]:
        try:
            judge_specs(_specs(value))
        except UsageError as error:
            raise ValueError(str(error)) from error
        return value

    @model_validator(mode="before")
    @classmethod
    def _as_long_as_lengths(cls, content: Any) -> Any:
        lengths = content.get("lengths") if isinstance(content, dict) else None
        if isinstance(lengths, list | tuple) and lengths and all(isinstance(each, int) for each in lengths):
            return {"max_new_tokens": max(lengths), **content}
        return content

    @model_validator(mode="after")
    def _long_enough(self) -> "Evaluate":
        try:
            longest(self.max_new_tokens, self.lengths)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def specs(self) -> tuple[JudgeSpec, ...]:
        """The judges as `evaluate` takes them."""
        return judge_specs(_specs(self.judges))


def _specs(judges: Iterable[str | JudgeEntry]) -> list[str | JudgeSpec]:
    return [each if isinstance(each, str) else JudgeSpec(kind=each.kind, options=each.options) for each in judges]


class Bounds(Section):
    """Bounds on damage: beyond them a run ends with exit code 4 and no finished model.

    Absent bounds are not checked.

    `max_kl` and `max_loss_increase` are in nats, at the first answer token and per answer token. `min_refusal` is for
    edits that are to leave refused requests refused, `min_ordinary_refused` for those that make a model refuse ordinary
    ones.
    """

    max_refusal: Share | None = None
    min_refusal: Share | None = None
    max_over_refusal: Share | None = None
    min_ordinary_refused: Share | None = None
    min_answers_right: Share | None = None
    min_helpful_recovered: Share | None = None
    max_kl: Annotated[float, Field(gt=0)] | None = 1.0
    max_loss_increase: Annotated[float, Field(gt=0)] | None = 0.5


class Push(Section):
    """Where the edited model is pushed at the end of a run, if whoever runs it says `push`, too.

    `private` has no default: with true nothing is sent unless the repository is private. `branch` and `create_pr` are
    as in `push`. There is no key for a token.
    """

    repo: str
    private: bool
    branch: str | None = None
    create_pr: bool = False

    @model_validator(mode="after")
    def _a_destination(self) -> "Push":
        try:
            _ = self.destination
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def destination(self) -> Destination:
        """The repository, and the branch or pull request in it."""
        return Destination(repo_id=self.repo, private=self.private, branch=self.branch, create_pr=self.create_pr)


class Study(Section):
    """An experiment on the unedited model under hooks: its kind and settings.

    The kinds are in `weight_edit/studies/`.
    """

    kind: str
    title: str = ""
    options: dict[str, Any] = Field(default_factory=dict)


class Recipe(Section):
    """A whole recipe. `model` is a Hub id, a folder or "organism".

    `prompts` gives names to prompt sets: "@name" stands for one wherever a set is asked for, so that other prompts are
    set in one place.

    `template`, `template_args` and `thinking` say how prompts become a chat, see `ChatFormat`.

    `overlays` names the files that were laid over the recipe, for the record; nothing is read because of it.

    `find` makes the directions of edits that name no others; `finds` makes more, by name. `directions` are given ones,
    by name, of which "main" takes the place of `find`: the path of a safetensors file from the recipe's folder, or
    their numbers, as `weight_edit.json` has them.

    `studies` are experiments under hooks, which write tables and figures. Without an `edit`, a recipe with studies
    bakes nothing, and one without them ablates. With `search` the edit is the one that it picks, and `edit` holds what
    is said of any edit as a whole.
    """

    title: str = ""
    model: str
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str | None = None
    offload: bool = False
    system: str | None = None
    template: str | None = None
    template_args: dict[str, bool | int | float | str | None] = Field(default_factory=dict)
    thinking: Literal["on", "off"] | None = None
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0
    prompts: dict[str, str] = Field(default_factory=dict)
    find: Find | None = None
    finds: dict[str, Find] = Field(default_factory=dict)
    directions: dict[str, Any] = Field(default_factory=dict)
    studies: list[Study] = Field(default_factory=list)
    search: Search | None = None
    edit: EditSection | None = None
    verify: Verify = Verify()
    evaluate: Evaluate = Evaluate()
    bounds: Bounds = Bounds()
    push: Push | None = None
    overlays: list[str] = Field(default_factory=list)
    _folder: Path | None = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    def _with_edit(cls, content: Any) -> Any:
        if not isinstance(content, dict) or content.get("edit") is not None:
            return content
        bakes = not content.get("studies") or content.get("search") is not None
        return {**content, "edit": {}} if bakes else content

    @field_validator("thinking", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any) -> Any:
        # On and off without quotes are truth values in YAML.
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value

    @field_validator("finds")
    @classmethod
    def _apart(cls, value: dict[str, Find]) -> dict[str, Find]:
        _check_names(value, (MAIN, CONTROL))
        return value

    @field_validator("directions")
    @classmethod
    def _usable(cls, value: dict[str, Any]) -> dict[str, Any]:
        _check_names(value, (CONTROL,))
        for name, given in value.items():
            check_given(name, given)
        return value

    @model_validator(mode="after")
    def _complete(self) -> "Recipe":
        if self.find is not None and MAIN in self.directions:
            raise ValueError("the directions 'main' are both found by 'find' and given by 'directions'; leave one out")
        _check_names([*self.finds, *self.directions], (CONTROL,))
        if self.search is not None:
            self._check_searched()
        if self.push is not None and self.edit is None:
            raise ValueError("'push': the recipe bakes no model to push; leave it out, or add an 'edit'")
        known = {*self.searches, *self.directions}
        asked = [step.directions or MAIN for step in (self.edit.steps if self.edit else [])]
        if MAIN not in known and (MAIN in asked or not (asked or self.studies)):
            raise ValueError("'find' is missing")
        missing = [name for name in asked if name not in known]
        if missing:
            raise ValueError(
                f"an edit asks for the directions '{missing[0]}', which are not among 'finds' nor 'directions'"
            )
        return self

    def _check_searched(self) -> None:
        """Refuse an edit beside the one that the search picks.

        Raises:
            ValueError: names the first setting.
        """
        if self.find is None:
            raise ValueError("'search' begins with what 'find' finds, which is missing")
        if self.edit is None:
            return
        plain = EditSection()
        own = [*EditEntry.model_fields, "then"]
        given = [name for name in own if getattr(self.edit, name) != getattr(plain, name)]
        if given:
            raise ValueError(f"'edit.{given[0]}' is what 'search' picks; leave it out, or leave 'search' out")
        if self.edit.embeddings == "skip":
            raise ValueError("'edit.embeddings': a search edits the embedding where that is best; write both or untie")

    def __repr__(self) -> str:
        edit = "no edit" if self.edit is None else ", ".join(step.kind for step in self.edit.steps)
        return f"Recipe({self.title!r}, model={self.model!r}, {len(self.studies)} studies, {edit})"

    def __str__(self) -> str:
        return repr(self)

    @property
    def searches(self) -> dict[str, Find]:
        """Every search for directions, by name; the recipe's own `find` is "main"."""
        return {**({} if self.find is None else {MAIN: self.find}), **self.finds}

    @property
    def folder(self) -> Path | None:
        """Where the recipe was read, and the files of its `directions` lie; None of one that was not."""
        return self._folder


def load_recipe(
    path: str | Path,
    overrides: Iterable[str] = (),
    overlays: Iterable[str | Path] = (),
    model: str | None = None,
) -> Recipe:
    """Read and validate a recipe.

    For a `model` that is not an embedded one, the bundled overlay `hub` is laid over a recipe whose `prompts` are the
    embedded model's, before everything else: public sets take their place, while a recipe's own sets stay, and bounds
    that only the embedded model has to keep are lifted. Its searches take the nearest candidate where none keeps their
    bounds, unless the recipe says otherwise. That is said on stderr and recorded in `overlays`.

    Args:
        path: the YAML file, or the name of a bundled recipe, such as "organism"; a file of that name wins.
        overlays: YAML files, or names of bundled ones, laid over it, in order: their entries take the place of its own,
            section by section.
        overrides: "key=value" with dots for sections, such as "edit.strength=0.5"; values are read as YAML.
        model: a Hub id, a folder or an embedded model, in place of the recipe's.

    Raises:
        UsageError: unreadable, malformed, or with a wrong key (the nearest right one is named) or value; or prompts of
            the embedded model that are left for another one.
    """
    overrides = list(overrides)
    content = content_of(recipe_file(path))
    # What a file's own sections ask for is no misspelling, though something laid over it asks for something else.
    asked, taken = names_asked(content), _texts_in(content.get("edit"))
    # That of a run's folder asks for none by name, whatever is laid over it.
    named = [(path, tuple(names_given(content)))] if asked else []
    if model is not None:
        content = on_model(content, model)
    for overlay in overlays:
        over = content_of(recipe_file(overlay, "overlay"))
        named.append((overlay, tuple(names_given(over))))
        content = laid_over(content, over, Path(overlay).stem)
        asked |= names_asked(content)
        taken |= _texts_in(content.get("edit"))
    if model is not None:
        content["model"] = model
    for override in overrides:
        override_entry(content, override)
    now = names_asked(content)
    for file, names in named:
        check_names_asked(names, asked | now, str(file))
    for override in overrides:
        check_names_overridden(override, now)
    if model is not None:
        check_model(content, model, str(path))
    recipe = _parsed(content, str(path), recipe_file(path).parent)
    _check_given_asked(recipe, str(path), taken)
    return recipe


def _check_names(names: Iterable[str], taken: Iterable[str]) -> None:
    """Refuse names of directions that mean others, or whose files would be one.

    Raises:
        ValueError: names the first.
    """
    files: dict[str, str] = {}
    for name in names:
        if name in taken:
            raise ValueError(f"'{name}' is taken: it means {_TAKEN[name]}; choose another name")
        if slug(name) in files:
            raise ValueError(f"'{name}' and '{files[slug(name)]}' would be kept in the same file; rename one")
        files[slug(name)] = name


def slug(name: str) -> str:
    """A name made fit for a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"


def parse_recipe(content: Mapping[str, Any], name: str = "recipe", folder: Path | None = None) -> Recipe:
    """The validated recipe of parsed YAML content.

    Args:
        content: the sections.
        name: for messages.
        folder: where the files of its `directions` lie.

    Raises:
        UsageError: naming the first wrong key or value, or an entry with an access token.
    """
    check_names_asked(names_given(content), names_asked(content), name)
    recipe = _parsed(content, name, folder)
    _check_given_asked(recipe, name)
    return recipe


def _check_given_asked(recipe: Recipe, name: str, taken: Collection[str] = ()) -> None:
    """Refuse directions that a recipe brings along and nothing asks for: misspelt ones change nothing.

    Args:
        taken: names for which its edit asked before anything was laid over it.

    Raises:
        UsageError: naming the first.
    """
    # A study may take all there are.
    if recipe.studies or recipe.edit is None:
        return
    asked = [step.directions or MAIN for step in recipe.edit.steps]
    unused = next((each for each in recipe.directions if each not in (*asked, *taken, MAIN)), None)
    if unused is not None:
        raise UsageError(
            f"{name}: 'directions.{unused}': no edit and no study asks for them; the edit takes '{asked[0]}'"
        )


def _texts_in(value: Any) -> set[str]:
    """Every text in a value, at any depth."""
    if isinstance(value, dict | list):
        return set().union(*map(_texts_in, value.values() if isinstance(value, dict) else value))
    return {value} if isinstance(value, str) else set()


def _parsed(content: Mapping[str, Any], name: str, folder: Path | None) -> Recipe:
    """The validated recipe of content whose names of prompt sets are known to be asked for."""
    check_no_token(content, name)
    # Names may stand for one another too: the sets themselves go through the same.
    recipe = validated(Recipe, with_named_sets(in_present_words(content), names_given(content), name), name, "a recipe")
    recipe._folder = folder
    return recipe
