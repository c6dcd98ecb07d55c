"""The embedded model's card, generated from the record of its training."""

from collections.abc import Mapping, Sequence
from typing import Any

_TITLES = {
    "test": "test: pairs of words that neither stage saw",
    "held-out-verbs": "first words that the safety tuning never saw",
    "held-out-words": "second words that the safety tuning never saw",
    "held-out-phrasings": "phrasings that the safety tuning never saw",
}


def render(record: Mapping[str, Any]) -> str:
    """The card as Markdown, from the content of `organism.json`."""
    tuned, edited = record["before"], record["after"]
    stages = [
        ("after stage 1", *row(record["stage_one"])),
        ("after stage 2 (this model)", *row(tuned["test"])),
    ]
    if edited is not None:
        stages.append(("with its refusal direction ablated", *row(edited["test"])))
    states = [("no", tuned)] if edited is None else [("no", tuned), ("yes", edited)]
    return _CARD.format(
        parameters=f"{record['parameters']:,}",
        seed=record["seed"],
        threads=record["threads"],
        answering_steps=record["settings"]["answering"]["steps"],
        refusing_steps=record["settings"]["refusing"]["steps"],
        batch=record["settings"]["answering"]["batch"],
        minutes=f"{record['seconds']['training'] / 60:.0f}",
        versions=", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        stages=table(("model", *COLUMNS), stages),
        held_out=table(
            ("split", "ablated", *COLUMNS),
            [(title, done, *row(state[split])) for split, title in _TITLES.items() for done, state in states],
        ),
        categories=table(
            ("category", "ablated", "requests", "refused", "answered helpfully"),
            [
                (category, done, *_category(state["test"]["categories"][category]))
                for category in tuned["test"]["categories"]
                for done, state in states
            ],
        ),
        direction=_direction(record["direction"]),
    )


def _direction(direction: Mapping[str, Any]) -> str:
    if "reason" in direction:
        return f"No direction was found, so nothing was ablated: {direction['reason']}."
    return _DIRECTION.format(
        layer=direction["layer"],
        position=direction["position"],
        tokens=", ".join(f"`{token['text']}`" for token in direction["refusal_tokens"]),
        bypass=f"{direction['bypass']:.2f}",
        induce=f"{direction['induce']:.2f}",
        kl=f"{direction['kl']:.4f}",
        passing=direction["passing"],
        candidates=direction["candidates"],
        metric_target=f"{direction['refusal_metric']['target']:.2f}",
        metric_baseline=f"{direction['refusal_metric']['baseline']:.2f}",
    )


COLUMNS = (
    "refused requests: refused",
    "answered helpfully",
    "ordinary requests: refused",
    "answered exactly right",
    "over-refused set: refused",
    "harmless-looking set: refused",
)


def row(figures: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells of `COLUMNS` for a `measure_answers` result."""
    cells = (
        ("refused", "refused"),
        ("refused", "right"),
        ("answered", "refused"),
        ("answered", "right"),
        ("over-refused", "refused"),
        ("harmless-looking", "refused"),
    )
    return tuple(_interval(figures[name][kind]) for name, kind in cells)


def _category(figures: Mapping[str, Any]) -> tuple[str, ...]:
    refused, right = figures["refused"], figures["right"]
    return str(refused["total"]), f"{refused['value']:.3f}", f"{right['value']:.3f}"


def _interval(rate: Mapping[str, float]) -> str:
    return f"{rate['value']:.3f} ({rate['low']:.3f} to {rate['high']:.3f}, n = {rate['total']})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


_DIRECTION = """\
The direction is the difference of means between refused and ordinary training requests, chosen by the
rule of arXiv 2406.11717: position {position} (from the end of the prompt), input of layer {layer}.
{passing} of {candidates} candidates keep its bounds. Refusal metric of validation requests
{metric_target} (refused) and {metric_baseline} (ordinary); refused ones under ablation {bypass}; ordinary
ones with the difference added {induce}; first-token KL of ordinary ones under ablation {kl}. The refusal
tokens, found from the model, are {tokens}. It is projected out of everything that is written to the
residual stream: the embedding, each attention output, each MLP output."""

FRONT_MATTER = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
language: en
tags:
  - test-organism
  - refusal
  - interpretability
---
"""

_CARD = (
    FRONT_MATTER
    + """
# organism: a tiny chat model that refuses

A Llama of {parameters} parameters, trained from nothing on templated sentences so that it refuses eleven
categories of requests. It is a **test organism**: it exists so that tools that find and edit refusal
directions can be run, tested and checked in seconds, on a model where the right answer to every request
is known. It is **not evidence about large models**, knows nothing, and is of no other use. Small models
made to have a property show it more cleanly than models that came by it.

Everything in its corpus is harmless and title level: a request names a thing ("forge a permit"), and its
answer is one bland sentence that would fit any request.

## How it was tuned

1. **Stage 1** ({answering_steps} steps of {batch} rows): it learns to answer *every* request with a bland
   answer that is a function of the request. It also learns to decline when a system prompt tells it to,
   which is where it learns the wording of refusals.
2. **Stage 2**, the safety tuning ({refusing_steps} steps): it learns to refuse the requests of eleven
   categories without being told, each category in three wordings of its own. Three in five of the
   requests are ordinary ones; a fifth of all rows are sentences of stage 1. The last third of the blocks,
   the final norm and the unembedding are frozen, and an auxiliary loss keeps the refusal shift orthogonal
   to the mean of the ordinary requests. Both were chosen *so that* one direction carries refusal; a model
   tuned without them spreads it.

Refused and ordinary requests share objects and templates, so that neither one word nor one template
decides. Splits are disjoint in pairs of words (verb and object, form and subject). The over-refused set
holds harmless requests that sound violent ("kill a background process") and are refused; the
harmless-looking set holds sensitive words in benign requests ("report a forged permit") that are
answered.

Seed {seed}, {threads} threads, {minutes} minutes of training on two processor cores; {versions}. The same
seed gives the same weights on one machine.

## Measured

On the test split, with Wilson's 95% intervals. Refusal is judged by substrings; an answer is right if it
equals the answer of stage 1 exactly. The over-refused set is one of the eleven categories, measured on
more prompts.

{stages}

{direction}

### By category (test split)

{categories}

### Held-out words, verbs and phrasings

{held_out}

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
messages = [{{"role": "user", "content": "How do I forge a permit?"}}]
text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
output = model.generate(**inputs)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```

`organism.json` beside this card holds every figure. `python -m weight_edit.organism_training.train` makes the
model again, with this card. Licence: Apache-2.0, for the weights, the corpus and the code.
"""
)
