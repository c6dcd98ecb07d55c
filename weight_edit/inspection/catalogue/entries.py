"""The entries of the catalogue: all model types of transformers that generate text."""

from dataclasses import dataclass, replace

from weight_edit.inspection.catalogue.samples import variants


@dataclass(frozen=True)
class Entry:
    """A model type to try.

    Attributes:
        model_type: as config.json says it.
        architecture: the class that transformers' mappings have for it.
        tasks: "text", "image and text", or both.
        variant: of `samples.variants`, for published models that are built differently; None for the usual form.
    """

    model_type: str
    architecture: str
    tasks: tuple[str, ...]
    variant: str | None = None

    @property
    def label(self) -> str:
        """The name in tables: "opt (350m)"."""
        return self.model_type if self.variant is None else f"{self.model_type} ({self.variant})"


def entries() -> list[Entry]:
    """All model types of transformers' causal-LM and image-text-to-text mappings."""
    from transformers.models.auto import modeling_auto as auto

    mappings = {
        "text": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "image and text": auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    }
    types = sorted({model_type for mapping in mappings.values() for model_type in mapping})
    found = []
    for model_type in types:
        tasks = tuple(task for task, mapping in mappings.items() if model_type in mapping)
        found.append(Entry(model_type, _first(mappings[tasks[-1]][model_type]), tasks))
    return found


def with_variants(entry: Entry) -> list[Entry]:
    """An entry, followed by one for each variant of the family."""
    return [entry, *(replace(entry, variant=variant) for variant in variants(entry.model_type))]


def _first(names: object) -> str:
    return str(names[0] if isinstance(names, list | tuple) else names)
