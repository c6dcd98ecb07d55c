"""The model card of an edited checkpoint: what was done, what was measured, and what was not."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from weight_edit.bounded_yaml import parse_yaml

# Keys of the base card that stay true of the edited model; figures and evaluations of the base do not.
KEPT_KEYS = ("license", "license_name", "license_link", "language", "pipeline_tag", "library_name")

DEEDS = {
    "add": "a vector added to the residual stream (activation addition)",
    "reflect": "a direction of the residual stream reflected (counterfactual flip)",
    "affine": "the residual stream's component along a direction set to a class's mean (affine concept editing)",
    "erase": "a concept erased linearly from the residual stream (LEACE)",
    "norm-preserving": "a direction of the residual stream removed, column lengths kept (norm-preserving ablation)",
}
"""What an edit does, in a few words, where its strength does not change them."""

TEMPLATE = """\
---
{{ front_matter }}---

# {{ title }}

{{ base_name }} with one behaviour changed: **{{ deed }}**.
The change is baked into the weights by weight_edit {{ version }}; nothing was trained. Every tensor and file that is
not listed below is the base's, byte for byte.

Refusal behaviour was changed on purpose. This model may answer requests that the base declines, or decline others;
whoever deploys it is responsible for the safeguards that its use needs.

## What was done

| | |
|---|---|
| base | `{{ base_name }}`{% if revision %} at `{{ revision }}`{% endif %} ({{ architecture }}) |
{% for step in steps -%}
| edit{{ step.mark }} | {{ step.what }} |
| directions{{ step.mark }} | {{ step.found }} |
{% endfor -%}
| embeddings | {{ edit.embeddings }} |
| class of the edit | {{ edit.class }} |
| tensors edited | {{ n_tensors }}{% if n_added %}, and {{ n_added }} added{% endif %} |

{% if unknown -%}
{{ unknown | length }} tensors that the architecture does not account for were kept as they are (`{{ unknown[0] }}`
and others): if anything reads them, what they write to the residual stream is not edited.

{% endif -%}
{% if mtp and mtp.tensors_edited is defined -%}
Multi-token-prediction layers, with which some runtimes draft tokens, were edited too: {{ mtp.tensors_edited | length }}
of their tensors write to the residual stream.

{% elif mtp -%}
{{ mtp.tensors_kept }} tensors of multi-token-prediction layers, with which some runtimes draft tokens, were kept as
they are. Where every drafted token is checked against the model, as is usual, answers do not depend on them, but fewer
drafts may be accepted. `weight-edit bake --mtp edit` edits these layers too.

{% endif -%}
{% if not_edited -%}
These files look like a second copy of the weights and were not edited: {{ not_edited | join(", ") }}.

{% endif -%}
`weight_edit.json` holds the directions, the list of edited tensors and the SHA-256 of every file.

## What was measured

{% if not measured -%}
Nothing was measured on this checkpoint. `weight-edit verify` and `weight-edit evaluate` do.
{%- else -%}
{% if rows -%}
| measure | base | edited |
|---|---|---|
{% for row in rows -%}
| {{ row[0] }} | {{ row[1] }} | {{ row[2] }} |
{% endfor %}
Brackets hold 95% Wilson intervals. Refusals are counted by the substring judge "{{ judge }}" on answers of at most
{{ max_new_tokens }} tokens; empty, looping and off-template answers are counted apart, never as compliance.
{%- endif %}
{% if verification %}
Verification: integrity {{ "holds" if verification.integrity else "FAILS" }}; largest share of the residual stream along
the directions {{ "%.1e" | format(verification.leak) }} (in float32, all layers and tokens); largest logit difference
between edited weights and the base with hooks {{ "%.1e" | format(verification.logit_difference) }}.
{%- endif %}
{%- endif %}
{%- if failed %}

**This checkpoint failed its checks and must not be used:** {{ failed | join("; ") }}
{%- endif %}
{%- if base_card %}

The base's own card is kept as `{{ base_card }}`.
{%- endif %}
"""


def model_card(
    summary: Mapping[str, Any],
    measurements: Mapping[str, Any] | None,
    base_card: str | None,
    failed: tuple[str, ...] = (),
) -> str:
    """The card as Markdown with front matter.

    Args:
        summary: what `weight_edit.json` says was done.
        measurements: "baseline", "edited" (as `Evaluation.to_dict`) and "verification"; None when nothing was
            measured.
        base_card: text of the base's card, for its licence and languages.
        failed: why the checkpoint is not to be used.
    """
    base = front_matter(base_card)
    source = summary["source"]
    name = str(source["model"])
    edit = summary["edit"]
    header: dict[str, Any] = {key: base[key] for key in KEPT_KEYS if key in base}
    header.setdefault("library_name", "transformers")
    header.setdefault("pipeline_tag", "text-generation")
    if source.get("on_hub"):
        # The Hub links what is named here, so a folder's name must not stand in its place.
        header["base_model"] = name
        header["base_model_relation"] = "finetune"
    header["tags"] = ["weight-edit", "model-editing", "refusal"]
    measured = dict(measurements or {})
    edited = measured.get("edited") or {}
    text = (
        Environment(undefined=StrictUndefined, trim_blocks=False, autoescape=False)
        .from_string(TEMPLATE)
        .render(
            front_matter=yaml.safe_dump(header, sort_keys=False, allow_unicode=True),
            title=f"{name.rstrip('/').split('/')[-1]}, edited",
            base_name=name,
            deed="; then ".join(deed(step) for step in edit["steps"]),
            version=summary["weight_edit"],
            revision=source.get("revision"),
            architecture=source["architecture"],
            edit=edit,
            steps=_steps(edit["steps"]),
            n_tensors=len(summary["tensors"]),
            unknown=summary["tensors_unknown"],
            mtp=summary.get("mtp"),
            not_edited=summary["weights_not_edited"],
            n_added=len(summary["tensors_added"]),
            measured=bool(measured),
            rows=table_rows(measured.get("baseline"), edited),
            judge=edited.get("judge"),
            max_new_tokens=edited.get("max_new_tokens"),
            verification=measured.get("verification"),
            failed=failed,
            base_card=summary.get("base_card"),
        )
    )
    return text.rstrip() + "\n"


def _steps(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """What the card says of each step, numbered where there are several."""
    marks = [""] if len(steps) == 1 else [f" {number}" for number in range(1, len(steps) + 1)]
    pairs = zip(marks, steps, strict=True)
    return [{"mark": mark, "what": _what(step), "found": _found(step["directions"])} for mark, step in pairs]


def _what(step: Mapping[str, Any]) -> str:
    """One step with its settings, in a line."""
    said = [step["edit"], f"strength {step['strength']:g}"]
    if step.get("at"):
        said.append(f"at the input of {_layers(step['at'])}")
    else:
        said.append("all layers" if step["layers"] is None else _layers(step["layers"]))
    if step.get("kernel"):
        said.append("weaker by layer as its kernel says")
    said += [f"{key} {value}" for key, value in step.get("options", {}).items()]
    return ", ".join(said)


def _layers(layers: Sequence[int]) -> str:
    numbers = [str(layer) for layer in layers]
    return f"layer {numbers[0]}" if len(numbers) == 1 else f"layers {', '.join(numbers[:-1])} and {numbers[-1]}"


def _found(directions: Mapping[str, Any]) -> str:
    """How many directions, and where they come from."""
    said = [str(directions["shape"][0]), f"found by {directions.get('method') or 'a method not recorded'}"]
    if directions.get("layer") is not None:
        said.append(f"at the input of layer {directions['layer']}")
    if directions.get("position") is not None:
        said.append(f"position {directions['position']}")
    return ", ".join(said)


def deed(edit: Mapping[str, Any]) -> str:
    """What the edit does, in a few words."""
    strength, kind = edit["strength"], edit["edit"]
    if kind in DEEDS:
        return f"{DEEDS[kind]}, strength {strength:g}" if strength != 1 else DEEDS[kind]
    if kind != "ablate":
        return f"the residual stream changed by the edit '{kind}', strength {strength:g}"
    if strength == 1:
        return "a direction of the residual stream removed (directional ablation)"
    if strength > 1:
        return f"a direction of the residual stream turned against itself (ablation of strength {strength})"
    return f"a direction of the residual stream weakened (ablation of strength {strength})"


def front_matter(card: str | None) -> dict[str, Any]:
    """The YAML between the dashes at the top of a card; empty when there is none or it is malformed."""
    if card is None or not card.startswith("---"):
        return {}
    head = card[3:].split("\n---", 1)[0]
    try:
        found = parse_yaml(head)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def table_rows(baseline: Mapping[str, Any] | None, edited: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows (measure, base, edited) for every figure that either evaluation has."""
    from weight_edit.figures import figures

    before, after = figures(baseline or {}), figures(edited)
    names = list(dict.fromkeys([*before, *after]))
    return [(name, before.get(name, ""), after.get(name, "")) for name in names]
