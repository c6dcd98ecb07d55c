"""A recipe: one YAML file that says what is found, edited, verified and evaluated, validated before anything runs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator

from weight_edit.errors import UsageError
from weight_edit.plan import parse_layers
from weight_edit.section import Section, validated

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Find(Section):
    """How directions are found; the defaults are those of arXiv 2406.11717.

    `target` and `baseline` are prompt sets (see the README); `validation_*` are what candidates are scored on,
    split off from the former when absent. `refusal_tokens` are ids or strings, found from the model when absent.
    """

    method: str = "mean-difference"
    target: str
    baseline: str
    validation_target: str | None = None
    validation_baseline: str | None = None
    n_train: Positive = 128
    n_validation: Positive = 32
    refusal_tokens: list[int | str] | None = None
    filter_prompts: bool = True
    max_kl: Annotated[float, Field(gt=0)] = 0.1
    min_induce: float = 0.0
    max_layer_fraction: Annotated[float, Field(gt=0, le=1)] = 0.8
    best_effort: bool = False


class Edit(Section):
    """What is baked. `layers` is written as "0-31" or "4,8-12"; all blocks when absent."""

    kind: Literal["ablate"] = "ablate"
    strength: Annotated[float, Field(gt=0, le=2)] = 1.0
    layers: str | None = None
    embeddings: Literal["keep", "untie", "skip"] = "keep"
    projector: Literal["edit", "followed", "keep"] = "edit"
    mtp: Literal["keep", "edit"] = "keep"

    @field_validator("layers", mode="before")
    @classmethod
    def _readable(cls, value: Any) -> str | None:
        try:
            parse_layers(value)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return None if value is None else str(value)


class Verify(Section):
    """What the models run on for the proofs."""

    prompts: str = "organism:answered:test"
    n_prompts: Positive = 16


class Evaluate(Section):
    """What is measured before and after. A set that is absent is not measured."""

    refused: str | None = None
    answered: str | None = None
    over_refused: str | None = None
    harmless_looking: str | None = None
    limit: Positive | None = None
    max_new_tokens: Positive = 64


class Bounds(Section):
    """Damage beyond these ends the run with exit code 4 and no finished model. Absent bounds are not checked.

    `max_kl` and `max_loss_increase` are in nats, at the first answer token and per answer token.
    """

    max_refusal: Share | None = None
    max_over_refusal: Share | None = None
    min_answers_right: Share | None = None
    min_helpful_recovered: Share | None = None
    max_kl: Annotated[float, Field(gt=0)] | None = 1.0
    max_loss_increase: Annotated[float, Field(gt=0)] | None = 0.5


class Recipe(Section):
    """The whole of it. `model` is a Hub id, a folder or "organism"."""

    title: str = ""
    model: str
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str | None = None
    system: str | None = None
    template: str | None = None
    seed: int = 0
    find: Find
    edit: Edit = Edit()
    verify: Verify = Verify()
    evaluate: Evaluate = Evaluate()
    bounds: Bounds = Bounds()


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: the YAML file.
        overrides: "key=value" with dots for sections, such as "edit.strength=0.5"; values are read as YAML.

    Raises:
        UsageError: unreadable, malformed, or with a wrong key (the nearest right one is named) or value.
    """
    file = Path(path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"there is no recipe {file}") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{file} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{file} must hold keys and values, such as 'model: organism'")
    for override in overrides:
        _set(content, override)
    return parse_recipe(content, str(file))


def parse_recipe(content: Mapping[str, Any], name: str = "recipe") -> Recipe:
    """Validate a recipe's content.

    Raises:
        UsageError: naming the first wrong key or value.
    """
    return validated(Recipe, content, name, "a recipe")


def _set(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {override}: write key=value, for example --set edit.strength=0.5")
    *sections, last = key.split(".")
    place = content
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise UsageError(f"--set {override}: '{section}' is not a section")
    try:
        place[last] = yaml.safe_load(value)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"--set {override}: the value is no YAML") from error
