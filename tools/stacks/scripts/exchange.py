"""What every script of a stack reads and writes: one JSON file each.

A request has `models` (each a `folder`, and an `adapter` or None), `new_tokens`, `prompts` (lists of token ids),
`texts` (the same, for stacks that take no ids) and `scratch` (an empty folder for what is exported). The answer has an
entry for each model: `replies`, one for each prompt, or `error`, one line. A reply has `tokens`, the greedy ones, and
for each of them `top`, the two most probable tokens with the logarithms of their probabilities, or None.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path


def serve(run: Callable[[dict, dict], list]) -> None:
    """Answer the request in the first argument's file, into the second's, model by model.

    Args:
        run: the replies of a model, asked with its entry and the request; `scratch` is then its own.
    """
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answered = []
    for model in asked["models"]:
        with tempfile.TemporaryDirectory(dir=asked["scratch"]) as scratch:
            try:
                answered.append({"replies": run(model, {**asked, "scratch": scratch})})
            except Exception as error:  # noqa: BLE001 - whatever a stack raises is its answer
                lines = [line.strip() for line in str(error).splitlines() if line.strip()]
                answered.append({"error": f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]})
        # After each, and whole: what a crash or the end of the time leaves is said to have had no answer.
        part = Path(f"{sys.argv[2]}.part")
        part.write_text(json.dumps(answered), encoding="utf-8")
        part.replace(sys.argv[2])


def two_best(logits: object) -> list:
    """The two most probable tokens of one position as (id, logarithm of its probability).

    Args:
        logits: of the whole vocabulary, anything that numpy takes.
    """
    import numpy as np

    values = np.asarray(logits, dtype=np.float64)
    total = values.max() + np.log(np.exp(values - values.max()).sum())
    first = int(values.argmax())
    others = values.copy()
    others[first] = -np.inf
    return [[token, float(values[token] - total)] for token in (first, int(others.argmax()))]
