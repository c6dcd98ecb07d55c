"""The schema of a recipe: one YAML file that says what to find, edit, verify and evaluate.

It is validated before anything runs.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from weight_edit.checkpoint.files import read_whole
from weight_edit.edits.kernel import Kernels
from weight_edit.edits.registry import edit_kinds
from weight_edit.errors import UsageError
from weight_edit.evaluation.lengths import longest
from weight_edit.evaluation.registry import DEFAULT_JUDGES, JudgeSpec, judge_specs
from weight_edit.organism.embedded import EMBEDDED
from weight_edit.plan.plan import parse_layers
from weight_edit.recipe.bundled import PUBLIC, recipe_file
from weight_edit.utils.bounded_yaml import MAX_TEXT, parse_yaml
from weight_edit.utils.names import unknown
from weight_edit.utils.progress import announce
from weight_edit.utils.registry_listing import canonical, registered
from weight_edit.utils.renamed import present_values
from weight_edit.utils.seeds import LARGEST_SEED
from weight_edit.utils.settings import Section, validated

MAIN = "main"
"""The name of the directions from a recipe's `find`, among those of `finds`."""

CONTROL = "random"
"""The name of random directions, among found ones."""

_TAKEN = {MAIN: "the recipe's own 'find'", CONTROL: "the random directions that studies compare with"}

Positive = Annotated[int, Field(gt=0, lt=2**31)]
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
    n_more: Annotated[int, Field(ge=0, lt=2**31)] = 64
    confirm: Positive | None = None
    confirm_by: Literal["ablate", "add"] = "ablate"
    max_kl: Annotated[float, Field(gt=0)] | None = 0.1
    min_induce: float | None = 0.0
    max_layer_fraction: Annotated[float, Field(gt=0, le=1)] | None = 0.8
    max_protected_kl: Annotated[float, Field(gt=0)] | None = 0.1
    best_effort: bool = False

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
    or "found": the one where its directions were found.
    `directions` names one of `finds`; the recipe's `find` when absent. `options` are those of the kind.
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
        own = type(self).model_fields.keys() - EditEntry.model_fields.keys() - {"then"}
        return {name: getattr(self, name) for name in sorted(own)}


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
    where it is absent.
    """

    refused: str | None = None
    answered: str | None = None
    over_refused: str | None = None
    harmless_looking: str | None = None
    limit: Positive | None = None
    max_new_tokens: Positive = 64
    lengths: tuple[Positive, ...] = ()
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

    `find` makes the directions of edits that name no others; `finds` makes more, by name. `studies` are experiments
    under hooks, which write tables and figures. Without an `edit`, a recipe with studies bakes nothing, and one without
    them ablates.
    """

    title: str = ""
    model: str
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str | None = None
    system: str | None = None
    template: str | None = None
    template_args: dict[str, bool | int | float | str | None] = Field(default_factory=dict)
    thinking: Literal["on", "off"] | None = None
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0
    prompts: dict[str, str] = Field(default_factory=dict)
    find: Find | None = None
    finds: dict[str, Find] = Field(default_factory=dict)
    studies: list[Study] = Field(default_factory=list)
    edit: EditSection | None = None
    verify: Verify = Verify()
    evaluate: Evaluate = Evaluate()
    bounds: Bounds = Bounds()
    overlays: list[str] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _with_edit(cls, content: Any) -> Any:
        if isinstance(content, dict) and not content.get("studies") and content.get("edit") is None:
            return {**content, "edit": {}}
        return content

    @field_validator("thinking", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any) -> Any:
        # On and off without quotes are truth values in YAML.
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value

    @field_validator("finds")
    @classmethod
    def _apart(cls, value: dict[str, Find]) -> dict[str, Find]:
        files: dict[str, str] = {}
        for name in value:
            if name in (MAIN, CONTROL):
                raise ValueError(f"'{name}' is taken: it means {_TAKEN[name]}; choose another name")
            if slug(name) in files:
                raise ValueError(f"'{name}' and '{files[slug(name)]}' would be kept in the same file; rename one")
            files[slug(name)] = name
        return value

    @model_validator(mode="after")
    def _complete(self) -> "Recipe":
        asked = [step.directions for step in (self.edit.steps if self.edit else [])]
        if self.find is None and (None in asked or not (asked or self.studies)):
            raise ValueError("'find' is missing")
        missing = [name for name in asked if name is not None and name not in self.finds]
        if missing:
            raise ValueError(f"an edit asks for the directions '{missing[0]}', which are not among 'finds'")
        return self

    def __repr__(self) -> str:
        edit = "no edit" if self.edit is None else ", ".join(step.kind for step in self.edit.steps)
        return f"Recipe({self.title!r}, model={self.model!r}, {len(self.studies)} studies, {edit})"

    def __str__(self) -> str:
        return repr(self)

    @property
    def searches(self) -> dict[str, Find]:
        """Every search for directions, by name; the recipe's own `find` is "main"."""
        return {**({} if self.find is None else {MAIN: self.find}), **self.finds}


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
    content = _read(recipe_file(path))
    if model is not None:
        content = _on_model(content, model)
    for overlay in overlays:
        content = _laid_over(content, _read(recipe_file(overlay, "overlay")), Path(overlay).stem)
    if model is not None:
        content["model"] = model
    for override in overrides:
        _set(content, override)
    if model is not None:
        _check_model(content, model, str(path))
    return parse_recipe(content, str(path))


def slug(name: str) -> str:
    """A name made fit for a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"


def _read(file: Path) -> dict[str, Any]:
    # Not `exists`: of a path that none can be, too, the reading says what is wrong.
    if "\0" not in str(file) and not os.path.lexists(file):
        raise UsageError(f"there is no recipe {file}")
    try:
        content = parse_yaml(read_whole(file, 4 * MAX_TEXT).decode("utf-8"))
    except ValueError as error:
        raise UsageError(f"{file} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{file} must hold keys and values, such as 'model: organism'")
    return content


def _on_model(content: dict[str, Any], model: str) -> dict[str, Any]:
    """A recipe's content with public prompt sets in place of the embedded model's, for a model that is not embedded."""
    given = content.get("prompts")
    sets = given if isinstance(given, dict) else {}
    theirs = [name for name, spec in sets.items() if _is_embedded(spec)]
    if model in EMBEDDED or not theirs:
        return content
    overlay = _read(recipe_file(PUBLIC, "overlay"))
    public = {name: spec for name, spec in overlay["prompts"].items() if name in theirs or name not in sets}
    replaced = ", ".join(name for name in theirs if name in public)
    announce(
        f"for {model} the overlay {PUBLIC} is laid over the recipe: public prompt sets in place of those of the "
        f"embedded model ({replaced}), no bounds on rates, and the nearest candidate where none keeps a search's bounds"
    )
    return _best_effort(_laid_over(content, {**overlay, "prompts": public}, PUBLIC))


def _best_effort(content: dict[str, Any]) -> dict[str, Any]:
    """The content whose searches end with a direction, whatever bounds it misses: hours of measuring came before."""
    found = dict(content)
    if isinstance(content.get("find"), dict):
        found["find"] = {"best_effort": True, **content["find"]}
    if isinstance(content.get("finds"), dict):
        found["finds"] = {
            name: {"best_effort": True, **section} if isinstance(section, dict) else section
            for name, section in content["finds"].items()
        }
    return found


def _check_model(content: Mapping[str, Any], model: str, recipe: str) -> None:
    """Refuse another model beside `model`, and prompts of the embedded model for another one.

    Raises:
        UsageError: naming the first.
    """
    if content.get("model") != model:
        raise UsageError(
            f"the model is given twice, as {model} and as {content.get('model')}; leave `overrides: model=` out",
            option="overrides",
        )
    left = [] if model in EMBEDDED else [where for where, spec in _entries(content) if _is_embedded(spec)]
    if left:
        more = f" (and {len(left) - 1} more entries)" if len(left) > 1 else ""
        raise UsageError(
            f"{recipe}: {left[0]}{more} is a prompt set of the embedded model, which says nothing of {model}; name "
            f"another (`overrides: {left[0]}=...`), or give the model as `overrides: model={model}`, which leaves "
            "prompts as they are",
            option="overrides",
        )


def _entries(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every single value with the key by which `overrides` reach it."""
    if isinstance(value, dict | list):
        below = value.items() if isinstance(value, dict) else enumerate(value)
        for key, entry in below:
            yield from _entries(entry, f"{where}.{key}" if where else str(key))
    else:
        yield where, value


def _is_embedded(spec: Any) -> bool:
    return isinstance(spec, str) and spec.startswith("organism:")


def _laid_over(content: Mapping[str, Any], overlay: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Deep-merge the overlay of that name into `content`, and record it; the overlay wins."""
    merged = _merged(content, {key: value for key, value in overlay.items() if key != "overlays"})
    earlier = merged.get("overlays")
    merged["overlays"] = list(dict.fromkeys([*(earlier if isinstance(earlier, list) else ()), name]))
    return merged


def _merged(content: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(content)
    for key, value in overlay.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def parse_recipe(content: Mapping[str, Any], name: str = "recipe") -> Recipe:
    """The validated recipe of parsed YAML content.

    Raises:
        UsageError: naming the first wrong key or value.
    """
    given = content.get("prompts") or {}
    sets = given if isinstance(given, dict) else {}
    # Names may stand for one another too: the sets themselves go through the same.
    return validated(Recipe, _named(_in_present_words(content), sets, name), name, "a recipe")


def _in_present_words(content: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's content in the words of today, where it was written for an earlier version; says so on stderr."""
    present = dict(content)
    verify, edit = content.get("verify"), content.get("edit")
    if isinstance(verify, Mapping) and "n_prompts" in verify and "limit" not in verify:
        present["verify"] = {"limit" if key == "n_prompts" else key: value for key, value in verify.items()}
        announce("note: the recipe's verify.n_prompts is called verify.limit now")
    if isinstance(edit, Mapping):
        present["edit"] = present_values(edit)
        for key, value in present["edit"].items():
            if value != edit[key]:
                announce(f"note: the recipe's edit.{key}: {edit[key]} is called {value} now")
    return present


def _named(value: Any, sets: Mapping[Any, Any], recipe: str) -> Any:
    """The content with every "@name" replaced by the prompt set of that name."""
    if isinstance(value, str) and value.startswith("@"):
        return _set_named(value, sets, recipe)
    if isinstance(value, dict):
        return {key: _named(entry, sets, recipe) for key, entry in value.items()}
    return [_named(entry, sets, recipe) for entry in value] if isinstance(value, list) else value


def _set_named(reference: str, sets: Mapping[Any, Any], recipe: str) -> Any:
    passed = [reference]
    while isinstance(reference, str) and reference.startswith("@"):
        if reference[1:] not in sets:
            known = ", ".join(map(str, sets)) or "none"
            raise UsageError(f"{recipe}: '{reference}' is not among 'prompts', which are {known}")
        reference = sets[reference[1:]]
        if reference in passed:
            raise UsageError(f"{recipe}: {' -> '.join([*passed, reference])} stands for itself; name a prompt set")
        passed.append(reference)
    return reference


def _set(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UsageError(
            f"`overrides: {override}`: write key=value, for example `overrides: edit.strength=0.5`", option="overrides"
        )
    *sections, last = key.split(".")
    place: Any = content
    for section in sections:
        if isinstance(place, list):
            place = place[_index(section, place, override)]
        else:
            place = place.setdefault(section, {})
        if not isinstance(place, dict | list):
            raise UsageError(f"`overrides: {override}`: '{section}' is not a section", option="overrides")
    try:
        place[_index(last, place, override) if isinstance(place, list) else last] = parse_yaml(value)
    except ValueError as error:
        raise UsageError(f"`overrides: {override}`: the value is no YAML ({error})", option="overrides") from error


def _index(key: str, entries: list[Any], override: str) -> int:
    """The index of a list entry, as in "studies.0.options.control=false"."""
    if not key.isdecimal() or len(key) > 9 or int(key) >= len(entries):
        raise UsageError(
            f"`overrides: {override}`: '{key}' is not the number of an entry, from 0 to {len(entries) - 1}",
            option="overrides",
        )
    return int(key)
