"""The model card of an edited checkpoint: what was done, what was measured, and what was not."""

from collections.abc import Mapping
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

# Keys of the base card that stay true of the edited model; figures and evaluations of the base do not.
KEPT_KEYS = ("license", "license_name", "license_link", "language", "pipeline_tag", "library_name")

DEEDS = {
    "add": "a vector added to the residual stream (activation addition)",
    "reflect": "a direction of the residual stream reflected (counterfactual flip)",
    "affine": "the residual stream's component along a direction set to a class's mean (affine concept editing)",
    "erase": "a concept erased linearly from the residual stream (LEACE)",
    "norm-preserving": "a direction of the residual stream removed, with column lengths kept (norm-preserving ablation)",
}
"""What an edit does, in a few words, where its strength does not change them."""

TEMPLATE = """\
---
{{ front_matter }}---

# {{ title }}

{{ base_name }} with one behaviour changed: **{{ deed }}**. The change is baked into the weights by
weight_edit {{ version }}; nothing was trained. Every tensor and file
that is not listed below is the base's, byte for byte.

Refusal behaviour was changed on purpose. This model may answer requests that the base declines, or decline others;
whoever deploys it is responsible for the safeguards that its use needs.

## What was done

| | |
|---|---|
| base | `{{ base_name }}`{% if revision %} at `{{ revision }}`{% endif %} ({{ architecture }}) |
{% for step in steps -%}
| edit | {{ step.edit }}, strength {{ step.strength }}, layers {{ step.layers }}{% if step.at %}, at the input of layer \
{{ step.at | join(", ") }}{% endif %}, embeddings: {{ edit.embeddings }} |
| directions | {{ step.count }}, found by {{ step.method or "a method not recorded" }}\
{% if step.layer is not none %}, at the input of layer {{ step.layer }}\
, position {{ step.position }}{% endif %} |
{% endfor -%}
| class | {{ edit.class }} |
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
            deed=" and ".join(deed(step) for step in edit["steps"]),
            version=summary["weight_edit"],
            revision=source.get("revision"),
            architecture=source["architecture"],
            edit=edit,
            steps=[_step(step) for step in edit["steps"]],
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


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    """What the card says of one step."""
    found = {"method": None, "layer": None, "position": None, **step["directions"]}
    layers = "all" if step["layers"] is None else ", ".join(str(layer) for layer in step["layers"])
    return {**found, "at": (), **step, "layers": layers, "count": found["shape"][0]}


def deed(edit: Mapping[str, Any]) -> str:
    """What the edit does, in a few words."""
    strength, kind = edit["strength"], edit["edit"]
    if kind in DEEDS:
        return f"{DEEDS[kind]}, strength {strength:g}" if strength != 1 else DEEDS[kind]
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
        found = yaml.safe_load(head)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def table_rows(baseline: Mapping[str, Any] | None, edited: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows (measure, base, edited) for every figure that either evaluation has."""
    from weight_edit.figures import figures

    before, after = figures(baseline or {}), figures(edited)
    names = list(dict.fromkeys([*before, *after]))
    return [(name, before.get(name, ""), after.get(name, "")) for name in names]
