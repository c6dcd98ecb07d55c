"""How an edited model is used: the code or the commands on its card."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weight_edit.baking.card.adapter_use import in_command, llama_cpp_usage, of_llama_cpp
from weight_edit.organism.embedded import EMBEDDED

_LOADING = """\
from transformers import {auto}, {tokenizer}

name = "OWNER/NAME"  # where this is on the Hub, or the folder it is in
tokenizer = {tokenizer}.from_pretrained(name)
model = {auto}.from_pretrained(name, dtype="auto")
"""

_LOADING_ADAPTER = """\
from peft import PeftModel
from transformers import {auto}, {tokenizer}

base = {base}
tokenizer = {tokenizer}.from_pretrained(base)
model = PeftModel.from_pretrained({auto}.from_pretrained(base, dtype="auto"), "OWNER/NAME")
"""

_CHATTING = """
messages = [{"role": "user", "content": "How do I sharpen a pencil?"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
"""

_CONTINUING = """
inputs = tokenizer("To sharpen a pencil,", return_tensors="pt")
"""

_ANSWERING = """\
tokens = model.generate(**inputs.to(model.device), max_new_tokens=100)
print(tokenizer.decode(tokens[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))"""


@dataclass(frozen=True)
class PackFile:
    """The pack that is published in place of an edited checkpoint.

    Attributes:
        name: of the file.
        size: in bytes.
        repo_id: where it is published.
    """

    name: str
    size: int
    repo_id: str


def usage(manifest: Mapping[str, Any], pack: PackFile | None = None) -> str:
    """Example code or commands for a checkpoint, an adapter, a GGUF file or a pack."""
    source, kept = manifest["source"], manifest["card"]
    if pack is not None:
        return _pack_usage(pack, source)
    if of_llama_cpp(manifest):
        return llama_cpp_usage(manifest)
    if source.get("gguf"):
        return _gguf_usage(source["gguf"], kept)
    return _usage(kept, manifest.get("kind") == "adapter")


def _pack_usage(pack: PackFile, source: Mapping[str, Any]) -> str:
    """Commands that make the edited checkpoint of a pack and its base, on the Hub at the commit that was edited."""
    known = source.get("on_hub") is True or source["model"] in EMBEDDED
    base = in_command(source["model"], "BASE") if known else "BASE"
    pinned = f" --revision {in_command(source['revision'], 'COMMIT')}" if known and source.get("revision") else ""
    return (
        "pip install weight_edit\n"
        f"weight-edit apply {in_command(pack.repo_id, 'OWNER/NAME')} --base {base}{pinned} --out edited\n"
        f"weight-edit verify {base} edited"
    )


def _usage(kept: Mapping[str, Any], is_adapter: bool) -> str:
    """Example code that loads the model and generates from it."""
    speaks = kept["metadata"].get("pipeline_tag") not in ("image-text-to-text", "any-to-any", "audio-text-to-text")
    auto = "AutoModelForCausalLM" if speaks else "AutoModelForMultimodalLM"
    base = '"OWNER/BASE"  # the base: a folder or its id on the Hub'
    if kept["base_model"]:
        base = f'"{in_command(kept["base_model"], "OWNER/BASE")}"'
    head = (_LOADING_ADAPTER if is_adapter else _LOADING).format(auto=auto, tokenizer="AutoTokenizer", base=base)
    return head + (_CHATTING if kept["chat_template"] else _CONTINUING) + _ANSWERING


def _gguf_usage(file: object, kept: Mapping[str, Any]) -> str:
    """Commands that run a GGUF file by llama.cpp."""
    name = in_command(file, "MODEL.gguf")
    if kept["chat_template"]:
        return f'llama-cli -m {name} -cnv -p "You are a helpful assistant."\nllama-server -m {name}'
    return f'llama-cli -m {name} -no-cnv -n 100 -p "To sharpen a pencil,"'
