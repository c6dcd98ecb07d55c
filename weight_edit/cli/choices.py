"""The possible values of options, known without heavy imports: for help, typos, completion."""

from collections.abc import Callable, Mapping
from functools import cache

from weight_edit.cli.log_format import FORMATS
from weight_edit.utils.names import check_known
from weight_edit.utils.registry_listing import Registered, canonical, registered

CHOICES: Mapping[str, tuple[str, ...]] = {
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "positions": ("template", "last", "all"),
    "select": ("bypass", "accuracy", "cosmic", "cosmic-released"),
    "tokens_from": ("answers", "difference"),
    "filter_prompts": ("auto", "answers", "first-token", "none"),
    "confirm_by": ("ablate", "add"),
    "thinking": ("on", "off"),
    "embeddings": ("both", "untie", "skip"),
    "projector": ("edit", "partial", "skip"),
    "mtp": ("edit", "skip"),
    "rounding": ("balanced", "nearest"),
    "file_format": ("peft", "gguf"),
    "log_format": FORMATS,
    "show": ("lines", "tokens", "text"),
    "sampler": ("tpe", "cma-es", "random"),
}
"""Parameters of verbs with few possible values; a test compares them with the functions."""

PROMPTS = (
    *("target", "baseline", "protect", "validation_target", "validation_baseline"),
    *("refused", "answered", "over_refused", "harmless_looking", "prompts"),
)
"""Parameters that take prompt sets."""

MODELS = ("model", "base", "a", "b", "against")
"""Parameters that take models."""


@cache
def methods() -> dict[str, Registered]:
    """Methods of finding directions, by name."""
    return registered("directions/finders", "finder")


@cache
def edits() -> dict[str, Registered]:
    """Kinds of edits, by name."""
    return registered("edits/kinds", "edit")


@cache
def judges() -> dict[str, Registered]:
    """Judges of answers, by name."""
    return registered("evaluation/judges", "judge")


def check(params: Mapping[str, object]) -> None:
    """Refuse unknown names in options before anything large is imported.

    Args:
        params: a verb's parameters by name.

    Raises:
        UsageError: with the nearest name.
    """
    for name, values in CHOICES.items():
        for value in _texts(params.get(name)):
            check_known(f"--{name.replace('_', '-')}", value, values)
    for name, known in (("method", methods), ("kind", edits)):
        for chosen in _texts(params.get(name)):
            chosen = canonical(chosen, known())
            check_known(name, chosen, known())
            settings = known()[chosen].settings
            for text in _texts(params.get("option")):
                key, equals, _ = text.partition("=")
                # Where none are listed they stand in another file, and are checked when that is imported.
                if settings and equals:
                    check_known(f"option of the {name} {chosen}", key.strip(), settings)
    for chosen in _texts(params.get("finder")):
        check_known("method", canonical(chosen, methods()), methods())
    for name in PROMPTS:
        for spec in _texts(params.get(name)):
            _check_prompts(spec)


def _texts(value: object) -> tuple[str, ...]:
    """The texts that an option was given: none, one or several."""
    if isinstance(value, str):
        return (value,)
    return tuple(map(str, value)) if isinstance(value, (list, tuple)) else ()


def _check_prompts(spec: str) -> None:
    """Refuse an unknown built-in set, split or part; files and data sets are left to `load_prompts`."""
    from weight_edit.prompts.public_sets import chosen_set

    kind, _, rest = spec.partition(":")
    if kind == "atoms":
        from weight_edit.prompts.atoms.atoms import atom_file

        atom_file(rest)
    elif kind == "organism":
        from weight_edit.organism.corpus import SPLITS, groups

        name, _, split = rest.partition(":")
        groups(name)
        check_known("split of the organism's prompt sets", split or "train", SPLITS)
    else:
        chosen_set(spec)


def completions(name: str) -> Callable[[str], list[str]] | None:
    """The shell completion of a parameter, from a prefix to values; None if it has none."""
    if name in CHOICES:
        return _from(lambda: CHOICES[name])
    if name in PROMPTS:
        return _from(_prompt_sets)
    if name in MODELS:
        return _from(_models)
    known = {"method": methods, "finder": methods, "kind": edits, "judge": judges}.get(name)
    return None if known is None else _from(lambda: tuple(known()))


def _from(values: Callable[[], tuple[str, ...]]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [value for value in values() if value.startswith(incomplete)]

    return complete


def _prompt_sets() -> tuple[str, ...]:
    from weight_edit.organism.corpus import NAMES
    from weight_edit.prompts.atoms.atoms import atom_names
    from weight_edit.prompts.public_sets import public_sets

    sets = [f"organism:{name}:{split}" for name in NAMES for split in ("train", "validation", "test")]
    public = [f"{name}:{part}" for name, found in public_sets().items() for part in found.parts]
    return (*sets, *(f"atoms:{name}" for name in atom_names()), *public_sets(), *public)


def _models() -> tuple[str, ...]:
    from weight_edit.organism.embedded import EMBEDDED

    return tuple(EMBEDDED)
