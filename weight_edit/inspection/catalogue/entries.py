"""Every architecture of transformers that reads text, or images and text, and writes text: what the catalogue tries."""

from dataclasses import dataclass, replace

from weight_edit.inspection.catalogue.samples import variants


@dataclass(frozen=True)
class Entry:
    """One model type.

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
        """As a row of a table says it: "opt (350m)"."""
        return self.model_type if self.variant is None else f"{self.model_type} ({self.variant})"


def entries() -> list[Entry]:
    """All model types of transformers' mappings for causal language models and for image-text-to-text models."""
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
    """An entry, followed by one for each variant that the family has."""
    return [entry, *(replace(entry, variant=variant) for variant in variants(entry.model_type))]


def _first(names: object) -> str:
    return str(names[0] if isinstance(names, list | tuple) else names)
