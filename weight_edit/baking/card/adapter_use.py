"""What the card of an adapter says of its use: commands for llama.cpp, strengths, and what runtimes do not take."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from weight_edit.baking.card.markdown import codes

_PLAIN = re.compile(r"[\w./][\w.+/-]*")


def of_llama_cpp(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest is of files that llama.cpp reads beside a model."""
    return (manifest.get("adapter") or {}).get("format") == "gguf"


def in_command(name: object, otherwise: str) -> str:
    """A name as it stands in a command on a card; what stands for it where a shell or the card would read it wrongly.

    A name without some of its characters would be another file's.
    """
    text = str(name)
    return text if name and _PLAIN.fullmatch(text) else otherwise


def llama_cpp_usage(manifest: Mapping[str, Any]) -> str:
    """The command that serves the base with such files, at strength 1."""
    base = in_command(manifest["source"].get("gguf"), "BASE.gguf")
    given = ""
    for file in manifest["adapter"]["files"]:
        option = "--lora-scaled" if str(file).startswith("adapter") else "--control-vector-scaled"
        given += f" {option} {in_command(file, 'FILE.gguf')}:1"
    return f"llama-server -m {base}{given}"


def serving_notes(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Two sentences of an adapter: how it is dosed, and what runtimes do not take; none of a checkpoint."""
    said = manifest.get("adapter")
    if not said:
        return
    strengths = [f"{strength:g}" for strength in said.get("strengths") or ()]
    measured = f" At strengths {', '.join(strengths)} it was held to the bake of that strength." if strengths else ""
    if of_llama_cpp(manifest):
        yield f"llama.cpp scales it by the number behind the file's name, or by request (`lora`).{measured}"
        yield (
            "llama.cpp's adapters have no place for biases, position embeddings and a tied token embedding, and its "
            "control vectors none in front of blocks 0 and 1."
        )
        return
    folders = codes([f"strength-{each}" for each in strengths if each != "1"])
    named = f" vLLM takes a folder of each ({folders}) under a name of its own." if folders else ""
    yield f"PEFT scales it by `set_scale` of its layers.{named}{measured}"
    yield (
        f"vLLM takes ranks up to its `--max-lora-rank` (this is {int(said['rank'])}), and no biases, modules stored "
        "whole (`modules_to_save`) or, of most models, embeddings; llama.cpp takes a format of its own."
    )
