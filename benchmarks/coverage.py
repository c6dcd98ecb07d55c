"""How often the 95% intervals hold the truth, and how often the tests err, by simulation.

    python benchmarks/coverage.py [--repeats 2000] [--only rates|differences|mcnemar|means|kappa]

The grid: 20 to 400 prompts, rates from .05 to .95, models that differ on as few prompts as they can up to models that
are independent. Of rates and paired differences the coverage is a sum over all samples or over many draws; one rate by
itself can be off because counts are whole numbers, so the mean over a band of rates stands beside the worst cell.
Nominal is 95 within 1.5 points, and for a test a level of at most 5%.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from functools import cache
from statistics import NormalDist

import numpy as np

from weight_edit.evaluation.agreement import Agreement
from weight_edit.evaluation.differences import PairedDifference
from weight_edit.evaluation.intervals import Rate, Z
from weight_edit.evaluation.means import mean_comparison
from weight_edit.evaluation.significance import LEVEL, mcnemar

PROMPTS = (20, 50, 100, 200, 400)
RATES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95)
WITHIN = 0.015


def main() -> None:
    """Print a table for each claim."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2000, help="samples for each cell")
    parser.add_argument("--only", choices=tuple(PARTS), help="one claim alone")
    options = parser.parse_args()
    for name, part in PARTS.items():
        if options.only in (None, name):
            print(f"\n{name}: {(part.__doc__ or '').splitlines()[0]}", flush=True)
            for line in part(options.repeats):
                print(line, flush=True)


def rates(repeats: int) -> Iterator[str]:
    """Wilson's interval for one rate: the coverage summed over all counts."""
    yield f"{'prompts':>8} {'rates':>12} {'mean':>7} {'worst':>7} {'best':>7}"
    for total in PROMPTS:
        ends = [(Rate(count, total).low, Rate(count, total).high) for count in range(total + 1)]
        for low, high in ((0.02, 0.1), (0.1, 0.3), (0.3, 0.7), (0.7, 0.9), (0.9, 0.98)):
            cells = []
            for rate in np.linspace(low, high, 161):
                chances = _binomial(total, float(rate))
                cells.append(sum(p for p, (a, b) in zip(chances, ends, strict=True) if a <= rate <= b))
            yield f"{total:8} {low:5.2f} - {high:4.2f} {_percent(cells)}"


def differences(repeats: int) -> Iterator[str]:
    """Tango's interval for a paired difference, beside Newcombe's method 10."""
    yield f"{'prompts':>8} {'interval':>14} {'mean':>7} {'worst':>7} {'best':>7}  cells within 1.5 points, too low"
    generator = np.random.default_rng(0)
    for total in PROMPTS:
        found: dict[str, list[float]] = {"Tango": [], "Newcombe 10": []}
        for shares in _pairs(RATES, (0.0, 0.35, 0.7)):
            counts, times = np.unique(generator.multinomial(total, shares, size=repeats), axis=0, return_counts=True)
            truth = shares[2] - shares[1]
            for name, interval in (("Tango", _tango), ("Newcombe 10", _newcombe)):
                held = [_holds(interval(*map(int, each)), truth) for each in counts]
                found[name].append(float(np.dot(held, times)) / repeats)
        for name, cells in found.items():
            near, below = (np.mean([test(cell) for cell in cells]) for test in (_near, _below))
            yield f"{total:8} {name:>14} {_percent(cells)}  {near:.0%}, {below:.0%}"


def levels(repeats: int) -> Iterator[str]:
    """McNemar's exact test where both rates are one: how often p is at most .05, summed over all counts."""
    yield f"{'prompts':>8} {'differing':>10} {'level':>7} {'mid-p':>7} {'asymptotic':>11}"
    for total in PROMPTS:
        for share in (0.02, 0.1, 0.3, 0.6):
            level = np.zeros(3)
            for differing, chance in enumerate(_binomial(total, share)):
                if chance > 1e-12:
                    level += chance * np.array(_errors(differing))
            exact, mid, asymptotic = (100 * each for each in level)
            yield f"{total:8} {share:10.2f} {exact:6.2f}% {mid:6.2f}% {asymptotic:10.2f}%"


def means(repeats: int) -> Iterator[str]:
    """The paired bootstrap for means: studentised and symmetric, beside percentiles and BCa.

    The level of the test is what is missing to 100%: p is at most .05 where the interval leaves the hypothesis out.
    """
    yield f"{'prompts':>8} {'values':>26} {'ours':>7} {'percentile':>11} {'BCa':>7}"
    for total in (20, 50, 100, 400):
        for name, (draw, truth) in _values().items():
            generator = np.random.default_rng(total)
            held = np.zeros(3)
            times = repeats // (1 if total < 100 else 2)
            for _ in range(times):
                values = draw(generator, total)
                ours = mean_comparison(values)
                intervals = [(ours.low, ours.high), *_percentile_and_bca(values, generator)]
                held += [_holds(interval, truth) for interval in intervals]
            mine, percentile, bca = 100 * held / times
            yield f"{total:8} {name:>26} {mine:6.1f}% {percentile:10.1f}% {bca:6.1f}%"


def kappas(repeats: int) -> Iterator[str]:
    """The interval of Cohen's kappa, from Wilson's of the agreement, beside the delta method's."""
    yield f"{'answers':>8} {'interval':>14} {'mean':>7} {'worst':>7} {'best':>7}"
    generator = np.random.default_rng(0)
    tables = [
        (1 - agreed) * np.outer(one, other) + agreed * np.diag((one + other) / 2)
        for one, other in _margins()
        for agreed in (0.0, 0.4, 0.7, 0.9, 0.97)
    ]
    for total in (20, 50, 100, 300):
        found: dict[str, list[float]] = {"ours": [], "delta method": []}
        for table in tables:
            truth = _kappa(table)
            held = {name: [] for name in found}
            for counts in generator.multinomial(total, table.ravel(), size=repeats // 4):
                size = len(table)
                pairs = {(str(at // size), str(at % size)): int(count) for at, count in enumerate(counts)}
                agreement = Agreement(pairs)
                kappa, error = agreement.kappa, agreement.standard_error
                if kappa is not None and agreement.low is not None and agreement.high is not None:
                    held["ours"].append(_holds((agreement.low, agreement.high), truth))
                    span = Z * (error or 0.0)
                    held["delta method"].append(_holds((kappa - span, kappa + span), truth))
            for name, each in held.items():
                found[name].append(float(np.mean(each)))
        for name, cells in found.items():
            yield f"{total:8} {name:>14} {_percent(cells)}"


PARTS: dict[str, Callable[[int], Iterator[str]]] = {
    "rates": rates,
    "differences": differences,
    "mcnemar": levels,
    "means": means,
    "kappa": kappas,
}


def _holds(interval: tuple[float, float], truth: float) -> bool:
    return interval[0] - 1e-9 <= truth <= interval[1] + 1e-9


def _near(coverage: float) -> bool:
    return abs(coverage - 0.95) <= WITHIN


def _below(coverage: float) -> bool:
    return coverage < 0.95 - WITHIN


def _percent(cells: list[float]) -> str:
    return " ".join(f"{100 * each:6.1f}%" for each in (float(np.mean(cells)), min(cells), max(cells)))


def _binomial(total: int, rate: float) -> list[float]:
    """The chances of 0 to `total` successes."""
    logs = [
        math.lgamma(total + 1)
        - math.lgamma(count + 1)
        - math.lgamma(total - count + 1)
        + count * math.log(rate)
        + (total - count) * math.log1p(-rate)
        for count in range(total + 1)
    ]
    return [math.exp(each) for each in logs]


def _pairs(rates: tuple[float, ...], alike: tuple[float, ...]) -> Iterator[tuple[float, float, float, float]]:
    """Shares of both, first, second, neither; `alike` 0 is independence, 1 as few differing prompts as can be."""
    for one in rates:
        for other in rates:
            for weight in alike:
                both = one * other + weight * (min(one, other) - one * other)
                yield both, one - both, other - both, 1 - one - other + both


@cache
def _tango(*counts: int) -> tuple[float, float]:
    found = PairedDifference(*counts)
    return found.low, found.high


@cache
def _newcombe(both: int, first: int, second: int, neither: int) -> tuple[float, float]:
    """Method 10 of Newcombe, Statistics in Medicine 17, 1998, 2635-2650."""
    total = both + first + second + neither
    one, other = Rate(both + first, total), Rate(both + second, total)
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    product: float = both * neither - first * second
    product = max(product - total / 2, 0) if product > 0 else product
    phi = product / math.sqrt(margins) if margins else 0.0

    def span(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    value = other.value - one.value
    low = value - span(other.value - other.low, one.high - one.value)
    return low, value + span(other.high - other.value, one.value - one.low)


@cache
def _errors(differing: int) -> tuple[float, float, float]:
    """The chances that the exact, the mid-p and the asymptotic test reject, of so many prompts that differ."""
    exact = mid = asymptotic = 0.0
    for first in range(differing + 1):
        chance = math.comb(differing, first) / 2**differing
        p = mcnemar(first, differing - first)
        point = chance if first * 2 != differing else 0.0
        exact += chance * (p <= LEVEL)
        mid += chance * (p - point <= LEVEL)
        asymptotic += chance * (differing > 0 and abs(2 * first - differing) > Z * math.sqrt(differing))
    return exact, mid, asymptotic


Draw = Callable[[np.random.Generator, int], np.ndarray]


def _values() -> dict[str, tuple[Draw, float]]:
    """Values as they come from prompts, with their true mean: differences of two models, and divergences."""

    def lengths(generator: np.random.Generator, count: int) -> np.ndarray:
        cut = [np.minimum(generator.geometric(p, count), 64) for p in (0.05, 0.06)]
        return (cut[0] - cut[1]).astype(float)

    def capped(p: float) -> float:
        return sum((1 - p) ** (k - 1) for k in range(1, 65))

    return {
        "normal": (lambda g, n: g.normal(0.3, 1, n), 0.3),
        "Laplace": (lambda g, n: g.laplace(0.2, 1, n), 0.2),
        "answer lengths, cut at 64": (lengths, capped(0.05) - capped(0.06)),
        "-1, 0, 1": (lambda g, n: g.choice([-1.0, 0.0, 1.0], n, p=[0.05, 0.75, 0.2]), 0.15),
        "one prompt in five moved": (lambda g, n: g.binomial(1, 0.2, n) * g.normal(1, 1, n), 0.2),
        "exponential": (lambda g, n: g.exponential(1, n), 1.0),
        "lognormal": (lambda g, n: g.lognormal(0, 1, n), math.exp(0.5)),
        "difference of lognormals": (
            lambda g, n: g.lognormal(0, 1, n) - 0.8 * g.lognormal(0, 1, n),
            0.2 * math.exp(0.5),
        ),
    }


def _percentile_and_bca(values: np.ndarray, generator: np.random.Generator) -> list[tuple[float, float]]:
    """The two usual bootstrap intervals, of 1,000 resamples (Efron and Tibshirani 1993, chapters 13 and 14)."""
    normal, count = NormalDist(), len(values)
    resampled = values[generator.integers(0, count, (1000, count))].mean(axis=1)
    centred = values - values.mean()
    spread = float((centred**2).sum())
    acceleration = 0.0 if spread == 0 else float((centred**3).sum()) / (6 * spread**1.5)
    below = float((resampled < values.mean()).mean() + (resampled <= values.mean()).mean()) / 2
    bias = normal.inv_cdf(min(max(below, 0.001), 0.999))
    shifted = [bias + (bias + z) / (1 - acceleration * (bias + z)) for z in (-Z, Z)]
    plain = np.quantile(resampled, [0.025, 0.975])
    corrected = np.quantile(resampled, [normal.cdf(z) for z in shifted])
    return [(float(plain[0]), float(plain[1])), (float(corrected[0]), float(corrected[1]))]


def _margins() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Shares of kinds that two judges give: of two kinds and of four, alike and one more lenient."""
    for one, other in (
        ([0.5, 0.5], [0.5, 0.5]),
        ([0.9, 0.1], [0.9, 0.1]),
        ([0.7, 0.3], [0.6, 0.4]),
        ([0.5, 0.35, 0.1, 0.05], [0.5, 0.35, 0.1, 0.05]),
        ([0.5, 0.35, 0.1, 0.05], [0.3, 0.5, 0.15, 0.05]),
    ):
        yield np.array(one), np.array(other)


def _kappa(table: np.ndarray) -> float:
    expected = float((table.sum(axis=0) * table.sum(axis=1)).sum())
    return (float(np.trace(table)) - expected) / (1 - expected)


if __name__ == "__main__":
    main()
