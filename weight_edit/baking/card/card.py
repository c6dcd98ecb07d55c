"""The model card of an edited checkpoint or an adapter: a pure function of its manifest.

So a card can be made again when something was measured, and compared with the manifest it came from. All that is said
of the base, the directions and the measurements comes from files, and is written as text, never as structure.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import yaml
from jinja2 import Environment, StrictUndefined

from weight_edit.baking.card.adapter_use import of_llama_cpp, serving_notes
from weight_edit.baking.card.edit_summary import edit_summary, is_of_refusal, purpose, step_rows
from weight_edit.baking.card.markdown import code, codes, plain
from weight_edit.baking.card.results import model_index, prompt_rows, table_rows
from weight_edit.baking.card.usage import PackFile, usage
from weight_edit.baking.rounding import MOST_LEFT, by_format, coarse
from weight_edit.evaluation.effect import effect
from weight_edit.plan.exactness import plain_exactness

TEMPLATE = """\
# {{ title }}

{{ base_name }} with a change to its residual stream: **{{ edit_summary }}**.
{% if pack -%}
This repository holds the edit alone, in a file of {{ pack.size }} bytes, and no weights. `weight-edit apply` makes the
edited checkpoint of the base and compares every file's SHA-256 with the one that was published. The edit was computed
by weight_edit {{ version }}; nothing was trained.
{%- elif adapter -%}
The change is an adapter, computed by weight_edit {{ version }}; nothing was trained.
{%- else -%}
The change is baked into the weights by weight_edit {{ version }}; nothing was trained. Every tensor that
`weight_edit.json` does not list as edited or added, and every file that it lists as copied, is the base's, byte for
byte.
{%- endif %}
{% for sentence in purpose %}
{{ sentence }}
{% endfor %}
Whoever deploys this model is responsible for the safeguards that its use needs.

## How to use it

```{{ "sh" if gguf or pack else "python" }}
{{ usage }}
```
{% if not chat and not pack %}
The base has no chat template: it goes on with a text, and takes no messages.
{% endif %}
## What was done

| | |
|---|---|
| base | {{ source }}{% if revision %} at {{ revision }}{% endif %} ({{ architecture }}) |
{% if base_model -%}
| base on the Hub | {{ base_model }}{{ base_model_note }} |
{% endif -%}
{% for step in steps -%}
| edit{{ step.mark }} | {{ step.what }} |
| directions{{ step.mark }} | {{ step.found }} |
{% for row in step.rows -%}
| {{ row[0] }}{{ step.mark }} | {{ row[1] }} |
{% endfor -%}
{% endfor -%}
| embeddings | {{ embeddings }} |
| exactness | {{ exactness }} |
| tensors {{ "adapted" if adapter else "edited" }} | {{ n_tensors }} |
{% if n_added -%}
| tensors added | {{ n_added }} |
{% endif %}

{% if formats -%}
Edited tensors are stored in the base's own format. Rounding to it is balanced along the directions, so that it does not
put back what was removed. Of each format's tensors, the worst:

| format | tensors | of the edit kept | left of V^T W | off the edit not rounded | blocks with a new scale |
|---|---|---|---|---|---|
{% for row in formats -%}
| {{ row.format }} | {{ row.tensors }} | {{ row.kept }} | {{ row.left }} | {{ row.error }} | {{ row.rescaled }} |
{% endfor %}
{% endif -%}
{% for note in notes -%}
{{ note }}

{% endfor -%}
{{ holder }} holds the directions, the list of edited tensors and the SHA-256 of every file.

## What was measured

{% if not measured -%}
Nothing was measured on this {{ "adapter" if adapter else "checkpoint" }}.
{%- if fills_in %} `weight-edit verify` and `weight-edit evaluate --against` do, and fill in this card.{% endif %}
{%- endif %}
{%- if rows -%}
| measure | {% if compared %}base | {% endif %}edited |
|---|---|{% if compared %}---|{% endif %}
{% for row in rows -%}
| {{ row[0] }} | {% if compared %}{{ row[1] }} | {% endif %}{{ row[2] }} |
{% endfor %}
Brackets hold 95% intervals, Wilson's of rates and by the bootstrap over prompts of other means. Refusals are counted by
the judge "{{ judge }}" on answers of at most {{ max_new_tokens }} tokens; deflected, partial, empty, looping,
off-template and undecided answers are counted apart, never as compliance.

| prompts | set | number | SHA-256 |
|---|---|---|---|
{% for row in prompts -%}
| {{ row[0] }} | {{ row[1] }} | {{ row[2] }} | {{ row[3] }} |
{% endfor -%}
{%- endif %}
{%- if verification %}
{{ "\n" if rows }}Verification: {{ verification }}
{%- endif %}
{%- if effect %}

**Effect:** {{ effect }}
{%- endif %}
{%- if failed %}

**This checkpoint failed its checks and must not be used:** {{ failed }}
{%- endif %}

## Licence

{{ licence }}
{%- if base_card %}

The base's own card is kept as {{ base_card }}.
{%- endif %}
"""


def model_card(manifest: Mapping[str, Any], pack: PackFile | None = None) -> str:
    """The card as Markdown with front matter.

    Args:
        manifest: what `weight_edit.json` says; `files` is not looked at, nor anything outside of it.
        pack: what is published alone, of a repository that has no weights.

    Raises:
        AttributeError, KeyError, LookupError, TypeError, ValueError: a manifest that is not of our making.
    """
    source, edit, kept = manifest["source"], manifest["edit"], manifest["card"]
    steps = edit["steps"]
    is_adapter = manifest.get("kind") == "adapter"
    measured = manifest.get("measurements") or {}
    baseline, edited = measured.get("baseline") or {}, measured.get("edited") or {}
    name = str(kept["base_model"] or source["model"])
    title = f"{name.rstrip('/').split('/')[-1]}, {'edited by an adapter' if is_adapter else 'edited'}"
    rows = table_rows(baseline, edited)
    front_matter = yaml.safe_dump(
        _header(manifest, name, pack is not None), sort_keys=False, allow_unicode=True, width=1000
    )
    body = (
        Environment(undefined=StrictUndefined, trim_blocks=False, autoescape=False)
        .from_string(TEMPLATE)
        .render(
            title=plain(title),
            base_name=code(name),
            source=code(source["model"]),
            edit_summary=plain("; then ".join(edit_summary(step) for step in steps)),
            adapter=is_adapter,
            version=plain(manifest["weight_edit"]),
            purpose=purpose(steps),
            pack=None if pack is None else {"size": f"{pack.size:,}"},
            holder="`weight_edit.json`" if pack is None else code(pack.name),
            fills_in=not is_adapter and pack is None,
            usage=usage(manifest, pack),
            gguf=bool(source.get("gguf")) or of_llama_cpp(manifest),
            formats=list(_formats(manifest)),
            chat=bool(kept["chat_template"]),
            revision=code(source["revision"]) if source.get("revision") else None,
            architecture=plain(source["architecture"]),
            base_model=code(kept["base_model"]) if kept["base_model"] and not source.get("on_hub") else None,
            base_model_note=_HOW[kept["base_model_from"]],
            steps=list(step_rows(steps, kept.get("papers", {}))),
            embeddings=_EMBEDDINGS.get(edit["embeddings"]) or plain(edit["embeddings"]),
            exactness=plain(plain_exactness(str(edit["class"])), 600),
            n_tensors=len(manifest["tensors"]),
            n_added=len(manifest["tensors_added"]),
            notes=list(_notes(manifest)),
            measured=bool(edited) or bool(measured.get("verification")),
            rows=rows,
            compared=bool(baseline) or any(row[1] for row in rows),
            prompts=prompt_rows(baseline, edited),
            judge=plain(edited.get("judge")),
            max_new_tokens=plain(edited.get("max_new_tokens")),
            verification=_verification(measured.get("verification")),
            effect=_effect(edited, measured.get("verification")),
            failed=plain("; ".join(map(str, manifest.get("failed") or ())), 2000),
            licence=_licence(kept["metadata"], bool(kept["base_model"])),
            base_card=code(manifest["base_card"])
            if manifest["base_card"] and not is_adapter and pack is None
            else None,
        )
    )
    body = re.sub(r"\n{3,}", "\n\n", body).rstrip()
    return f"---\n{front_matter}---\n\n{body}\n"


_EMBEDDINGS = {
    "both": "edited; where the unembedding is the same tensor, it changes with them",
    "keep": "edited; where the unembedding is the same tensor, it changes with them",
    "untie": "edited; an unembedding that was the same tensor is stored apart",
    "skip": "left as they are",
}

_HOW = {
    None: "",
    "hub": "",
    "option": "",
    "cache": " (by the name of its folder in the Hub's cache)",
    "config": " (by its config.json)",
}
"""Source of the base's Hub id -> the remark on it."""


def _header(manifest: Mapping[str, Any], name: str, is_pack: bool) -> dict[str, Any]:
    """The front matter."""
    kept, is_adapter = manifest["card"], manifest.get("kind") == "adapter"
    # To the Hub a pack is what an adapter is: something small that is applied to its base.
    applied = is_adapter or is_pack
    metadata = dict(kept["metadata"])
    inherited_tags = metadata.pop("tags", [])
    link = metadata.get("license_link")
    if applied and link and not link.startswith("https://"):
        # It names a file of the base, which an adapter or a pack has not.
        metadata.pop("license_link")
        if kept["base_model"]:
            metadata["license_link"] = f"https://huggingface.co/{kept['base_model']}/blob/main/{quote(link)}"
    header: dict[str, Any] = dict(metadata)
    gguf = bool(manifest["source"].get("gguf")) or of_llama_cpp(manifest)
    # Of a file for llama.cpp the base's card may be the one of the model that it was made from, which transformers has.
    library = "weight-edit" if is_pack else "gguf" if gguf else "peft" if is_adapter else None
    header["library_name"] = library or header.get("library_name", "transformers")
    header.setdefault("pipeline_tag", "text-generation")
    if kept["base_model"]:
        # The Hub links what is named here, so a folder's name must not stand in its place.
        header["base_model"] = kept["base_model"]
        # Said, because the Hub guesses from files: an edited GGUF file would be listed as the base, quantised.
        header["base_model_relation"] = "adapter" if applied else "finetune"
    own = ["weight-edit", "model-editing"]
    own += ["lora"] if is_adapter else []
    own += ["gguf"] if gguf and not is_pack else []
    own += ["edit-pack"] if is_pack else []
    own += ["refusal"] if any(is_of_refusal(step["directions"]) for step in manifest["edit"]["steps"]) else []
    header["tags"] = list(dict.fromkeys([*own, *inherited_tags]))
    results = model_index(name.rstrip("/").split("/")[-1], (manifest.get("measurements") or {}).get("edited") or {})
    return {**header, **({"model-index": results} if results else {})}


def _formats(manifest: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The rows of the table on rounding, by format."""
    for found in by_format(manifest.get("rounding") or {}):
        yield {
            "format": plain(found.format),
            "tensors": str(found.tensors),
            "kept": f"{found.kept:.2%}",
            "left": f"{found.left:.2%}",
            "error": f"{found.error:.1%}",
            "rescaled": str(found.rescaled),
        }


def _notes(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Notes on the parts that were not edited, and on what a runtime may lose: sentences."""
    if manifest.get("kind") != "adapter":
        yield from _what_runtimes_may_lose(manifest["tensors_added"])
    unknown = manifest["tensors_unknown"]
    if unknown:
        yield (
            f"{len(unknown)} tensors that the architecture does not account for were kept as they are: "
            f"{codes(unknown, 3)}. If anything reads them, what they write to the residual stream is not edited."
        )
    mtp = manifest.get("mtp") or {}
    if "tensors_edited" in mtp:
        yield (
            "Multi-token-prediction layers, with which some runtimes draft tokens, were edited too: "
            f"{len(mtp['tensors_edited'])} of their tensors write to the residual stream."
        )
    elif mtp:
        yield (
            f"{int(mtp['tensors_kept'])} tensors of multi-token-prediction layers, with which some runtimes draft "
            "tokens, were kept as they are. Where every drafted token is checked against the model, as is usual, "
            "answers do not depend on them, but fewer drafts may be accepted. `bake --mtp edit` edits them too."
        )
    if manifest["weights_not_edited"]:
        yield (
            "These files look like a second copy of the weights and were not edited: "
            f"{codes(manifest['weights_not_edited'])}."
        )
    too_coarse = coarse(manifest.get("rounding") or {})
    if too_coarse:
        yield (
            f"In {len(too_coarse)} tensors rounding leaves more than {MOST_LEFT:.0%} of what was along the directions: "
            f"{codes(too_coarse, 3)}. There the format is too coarse for the edit."
        )
    packed = manifest.get("pack")
    if packed:
        at = f" at {code(packed['revision'])}" if packed.get("revision") else ""
        yield (
            f"This is the edit of a pack (SHA-256 {code(packed['sha256'])}), which was made of "
            f"{code(packed['edit_of'])}{at}, on another base: it is another result than the published one of the pack."
        )
    yield from serving_notes(manifest)
    for note in manifest.get("notes") or ():
        yield f"Note: {plain(note)}"


def _what_runtimes_may_lose(added: Collection[str]) -> Iterator[str]:
    """Notes on tensors that the base does not have, and that a runtime may take no notice of."""
    biases = [name for name in added if name.endswith(".bias")]
    if biases:
        yield (
            f"{len(biases)} biases were created, and the config announces them: {codes(biases, 3)}. They carry the "
            "edit. Some runtimes build the base's modules without biases whatever the config says, and lose the edit "
            "in silence: compare greedy answers with those of transformers where another runtime serves the model."
        )
    others = len(added) - len(biases)
    if others:
        yield (
            "The unembedding, which the base ties to the embedding, is stored apart, and the config says so. Some "
            "runtimes and converters tie them whatever the config says: compare greedy answers with those of "
            "transformers where another runtime serves the model."
        )


def _verification(checked: Mapping[str, Any] | None) -> str | None:
    """A sentence on what verification proved and what it did not measure."""
    if not checked:
        return None
    said = [f"integrity {'holds' if checked['integrity'] else 'FAILS'}"]
    leak, difference = checked.get("leak"), checked.get("logit_difference")
    if leak is None and difference is None:
        return f"{said[0]}; the models were not run. Whether the edit has an effect is another question."
    said.append(
        "the largest share of the residual stream along the directions is "
        f"{_figure(leak)} (in float32, all layers and tokens)"
    )
    if checked.get("complete") is False:
        said[-1] += ", of an edit that is partial by intention"
    said.append(
        "the largest logit difference between edited weights and the base with hooks is "
        f"{_figure(difference)} (float32)"
    )
    return "; ".join(said) + ". These figures say how complete and exact the edit is, not whether it has an effect."


def _effect(edited: Mapping[str, Any], checked: Mapping[str, Any] | None) -> str | None:
    """Whether the behaviour changed, which is another question than whether the edit is complete."""
    found = effect(edited, checked)
    return None if found is None else plain(found.finding, 1000)


def _figure(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1e}"


def _licence(metadata: Mapping[str, Any], is_on_hub: bool) -> str:
    licence = metadata.get("license")
    if not licence:
        where = "look at its page" if is_on_hub else "look where it comes from"
        return f"The base's files name no licence: {where} before sharing this."
    said = codes(licence if isinstance(licence, list) else [licence])
    if metadata.get("license_name"):
        said += f" ({code(metadata['license_name'])})"
    return f"That of the base, by its card: {said}. It holds for this model too."
