"""Linear layers under `torch.inference_mode` against `torch.no_grad`, for weights that require gradients and not.

    python benchmarks/grad_modes.py [--rows N] [--width N] [--out N] [--rounds N] [--calls N] [--device NAME]

The package runs models under `torch.no_grad`: with some releases of torch `inference_mode` was twice as slow for
bfloat16 weights without gradients on a processor. The modes take turns; told is, for each dtype, number of rows and
kind of weight, the ratio of the times, above 1 where `inference_mode` is slower.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import product

import torch
from timing import spread
from torch.nn.functional import linear

MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
}


def seconds(mode: str, x: torch.Tensor, weight: torch.Tensor, calls: int) -> float:
    """The time of some calls."""
    with MODES[mode]():
        # Made within the mode, as activations are.
        x = x.clone()
        linear(x, weight)
        _wait(x)
        began = time.perf_counter()
        for _ in range(calls):
            linear(x, weight)
        _wait(x)
        return time.perf_counter() - began


def _wait(x: torch.Tensor) -> None:
    if x.device.type == "cuda":
        torch.cuda.synchronize()


def main() -> int:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 32, 512])
    parser.add_argument("--width", type=int, default=896)
    parser.add_argument("--out", type=int, default=4864)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    print(f"torch {torch.__version__} on {options.device}, {torch.get_num_threads()} threads")
    for dtype, rows, gradients in product((torch.bfloat16, torch.float32), options.rows, (False, True)):
        x = torch.randn(rows, options.width, dtype=dtype, device=options.device)
        weight = torch.randn(options.out, options.width, dtype=dtype, device=options.device, requires_grad=gradients)
        ratios = []
        for number in range(options.rounds):
            # Whoever is first in a round is last in the next one.
            order = list(MODES)[:: 1 if number % 2 else -1]
            taken = {mode: seconds(mode, x, weight, options.calls) for mode in order}
            ratios.append(taken["inference_mode"] / taken["no_grad"])
        kind = "with" if gradients else "without"
        name = str(dtype).removeprefix("torch.")
        print(f"{name}, {rows} rows, a weight {kind} gradients: inference_mode / no_grad {spread(ratios)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
