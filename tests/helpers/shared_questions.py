"""Questions to the embedded model, asked by several processes together: each saves what it got."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weight_edit.errors import ProcessError, UsageError
from weight_edit.runtime.activations import ResidualStatistics, mean_residuals, residuals
from weight_edit.runtime.forward import Row, answer_logits, next_token, next_token_logprobs
from weight_edit.runtime.generation import generate
from weight_edit.runtime.hooks import addition_hook
from weight_edit.runtime.loading import Model, load
from weight_edit.runtime.points import Point
from weight_edit.runtime.processes import alone, divided, from_first, together, writes
from weight_edit.runtime.trunk import Trunk
from weight_edit.runtime.variants import PLAIN, Variant

LENGTHS = (9, 4, 21, 4, 12, 7, 30)
POINTS = [Point("resid_pre", 1), Point("resid_post", 3)]


def prompts() -> list[list[int]]:
    """Token ids of prompts of several lengths."""
    return [[(7 * row + 3 * column) % 200 + 5 for column in range(n)] for row, n in enumerate(LENGTHS)]


def answers() -> list[list[int]]:
    """Token ids of an answer to each prompt."""
    return [prompt[1:4] for prompt in prompts()]


def rows() -> Tensor:
    """Activations far from zero, (prompts, positions, points, d_model) float64."""
    return torch.arange(40.0, dtype=torch.float64).reshape(10, 1, 1, 4).sin() + 1000


def asked(model: Model) -> dict[str, Any]:
    """What the model gives, by question."""

    def read(row: int, logits: Tensor) -> tuple[int, Tensor]:
        return row, logits.float().logsumexp(dim=-1).cpu()

    def likeliest(rows: Sequence[Row], logits: Tensor) -> list[tuple[int, int, int]]:
        best = logits.argmax(dim=-1).tolist()
        return [(row.variant, row.prompt, token) for row, token in zip(rows, best, strict=True)]

    added = [
        Variant((addition_hook(model, layer, 3 * torch.eye(model.anatomy.d_model)[layer]),)) for layer in (1, 3, 4)
    ]
    variants = (PLAIN, *added)
    trunk = Trunk(model, prompts(), [1, 3, 4])
    return {
        "variants": next_token(model, prompts(), likeliest, variants=variants, trunk=trunk, description=None),
        "one prompt": next_token(model, prompts()[:1], likeliest, variants=variants, description=None),
        "residuals": residuals(model, prompts(), POINTS, [-1, -3], description=None),
        "mean residuals": mean_residuals(model, prompts(), POINTS, description=None),
        "next token": next_token_logprobs(model, prompts(), description=None),
        "answers": [(x.tokens, x.finished) for x in generate(model, prompts(), max_new_tokens=6, description=None)],
        "read": answer_logits(model, prompts(), answers(), read, description=None),
        "none": next_token_logprobs(model, [], description=None).shape,
        "one": next_token_logprobs(model, prompts()[:1], description=None),
    }


def _error(ask: Any) -> tuple[str, str, tuple[str, ...]] | None:
    try:
        ask()
    except (UsageError, ProcessError) as error:
        return type(error).__name__, str(error), error.options
    return None


def main(folder: Path) -> None:
    with together() as processes:
        assert processes is not None
        rank = processes.place.rank
        found = asked(load("organism", device="cpu"))
        found["prompts"] = list(processes.prompts)
        found["writes"] = writes()
        found["from first"] = from_first(lambda: f"of process {rank}", "a name")

        def refuse() -> str:
            raise UsageError(f"process {rank} refuses `out`", option="out")

        found["refused by the first"] = _error(lambda: from_first(refuse, "a refusal"))

        def ask(mine: Any) -> list[int]:
            if 2 in mine:
                raise UsageError("item 2 is refused")
            return list(mine)

        found["refused by one"] = _error(lambda: divided([3, 2, 1], ask, "items"))
        statistics = ResidualStatistics(with_covariance=True)
        statistics.update(rows()[rank::2])
        merged, *others = processes.exchanged(statistics, "statistics")
        for other in others:
            merged.merge(other)
        found["merged"] = (merged.count, merged.mean, merged.covariance)
        with alone():
            # No exchange: the other one asks nothing.
            found["alone"] = None if rank else divided([1, 1], list, "nobody else's")
        found["apart"] = _error(lambda: from_first(lambda: 0, f"question {rank}"))
        torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
