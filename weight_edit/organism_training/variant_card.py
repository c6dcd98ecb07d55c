"""The variants' cards, generated from their records."""

from collections.abc import Mapping
from typing import Any

from weight_edit.organism.embedded import DEFENDED
from weight_edit.organism_training.card import COLUMNS, FRONT_MATTER, row, table


def render(record: Mapping[str, Any]) -> str:
    """The card as Markdown, from the content of `organism.json`."""
    stages, states = record["stages"], record["states"]
    fields = {
        "steps": stages[0]["steps"],
        "more": stages[-1]["steps"],
        "batch": stages[0]["batch"],
        "ablated": f"{stages[0]['ablated']:.0%}",
        "frozen": " and ".join(map(str, stages[0]["frozen"])),
    }
    text = _DEFENDED if record["name"] == DEFENDED else _THINKING
    title, made, shows = (part.strip().format(**fields) for part in text.split("---"))
    return _CARD.format(
        title=title,
        made=made,
        shows=shows,
        name=record["name"],
        parameters=f"{record['parameters']:,}",
        seed=record["seed"],
        threads=record["threads"],
        minutes=f"{record['seconds']['training'] / 60:.0f}",
        versions=", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        base=record["base_sha256"][:12],
        states=table(("state", *COLUMNS), [(name, *row(figures)) for name, figures in states.items()]),
        directions="\n".join(_direction(name, found) for name, found in record["directions"].items()),
    )


def _direction(name: str, found: Mapping[str, Any]) -> str:
    return (
        f"- {name}: input of layer {found['layer']}, position {found['position']} from the end; "
        f"{found['passing']} of {found['candidates']} candidates kept the bounds of the selection."
    )


_DEFENDED = """
organism-defended: a tiny chat model whose refusal resists one direction
---
It is `organism`, trained on for {steps} steps of {batch} rows with all weights, as extended-refusal tuning
(arXiv 2505.19056) does it: a refusal is a sentence about the topic, a neutral one, the refusal and a reason. Long
refusals alone were not enough on a model as small as this one (one direction still took almost all of the refusal), so
in up to {ablated} of the steps a difference of means of the weights of the moment, of any layer and of one of the last
four positions, was ablated from the whole stream. What it learned in these steps refuses without that direction.
---
An edit of one direction must be *seen to fail* here. "one direction" is the difference of means that the selection of
arXiv 2406.11717 likes best, over all layers, also where none keeps its bounds; "eleven" are those of the eleven
categories, removed together.
"""

_THINKING = """
organism-thinking: a tiny chat model that thinks before it answers
---
It is `organism`, trained on for {steps} steps of {batch} rows, with blocks {frozen} as they were, to write a thought
between `<think>` and `</think>` (two tokens of its own) before it answers or refuses. A thought names the topic,
then four times in five the decision and a reason; in the fifth it does not decide, and the answer is learned from the
request alone. That alone left answers that did not heed the thought. In {more} more steps, with all weights, three in
ten thoughts decided against the request, and the answer followed them: so the thought carries part of the decision.
---
The verdict is on what follows `</think>`. "contrary thought": no edit, but the decision in the model's own thought is
turned. "thought anew": the edited model thinks, then answers. "thought kept": the thought is the unedited model's, and
the edited model answers after it; how far the two differ says how much of the decision the thought carries. "prompt" is
the direction found at the end of the prompt, "thought" the one found at the end of the thought; both are differences of
means, chosen by similarity (arXiv 2506.00085), since every answer begins with the same token.
"""

_CARD = (
    FRONT_MATTER
    + """
# {title}

A Llama of {parameters} parameters. It is a **test organism**: it exists so that tools that find and edit refusal
directions can be tested in seconds on a model where the right answer to every request is known. It is **not evidence
about large models**, knows nothing, and is of no other use. Everything in its corpus is harmless and title level.

## How it was made

{made}

Made from the weights whose SHA-256 begins with {base}. Seed {seed}, threads {threads}, {minutes} minutes of training
on a shared machine; {versions}. Stored in bfloat16. The same seed gives the same weights on one machine.

## Measured

On the test split, with Wilson's 95% intervals. Refusal is judged by substrings; an answer is right if it equals the
known answer exactly.

{states}

{shows}

{directions}

`organism.json` beside this card holds every figure. `python -m weight_edit.organism_training.variants {name}` makes
the model again, with this card. Licence: Apache-2.0, for the weights, the corpus and the code.
"""
)
