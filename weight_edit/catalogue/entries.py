"""Every architecture of transformers that reads text, or images and text, and writes text: what the catalogue tries."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One model type.

    Attributes:
        model_type: as config.json says it.
        architecture: the class that transformers' mappings have for it.
        tasks: "text", "image and text", or both.
    """

    model_type: str
    architecture: str
    tasks: tuple[str, ...]


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


def _first(names: object) -> str:
    return str(names[0] if isinstance(names, list | tuple) else names)
