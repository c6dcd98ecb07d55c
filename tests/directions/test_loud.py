"""Loud coordinates: how they are measured, what is done about them, and that nothing is where there are none."""

import statistics
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from tests.helpers.direction_samples import problem_of, sample
from tests.helpers.random_models import random_model
from tests.helpers.small_tokenizer import WORDS
from weight_edit.directions.find import find_directions
from weight_edit.directions.finders.mean_difference import (
    MeanDifferenceOptions,
    mean_difference,
    mean_differences,
    mended,
    off,
)
from weight_edit.directions.loud import BOUND, LEAST, SHARE, Deviations, said, threshold
from weight_edit.directions.problem import Problem
from weight_edit.directions.selection import SelectionRule
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.loading import Model

LOUD, WIDTH, TOKENS = 5, 32, range(4, 44)
TARGETS, BASELINES = TOKENS[::2], TOKENS[1::2]


@pytest.fixture(scope="module")
def planted() -> tuple[Model, Tensor]:
    """A random model whose embedding has one loud coordinate, and a direction in every second token.

    The direction has nothing along the loud coordinate, whose values are drawn without regard to the halves.
    """
    model = random_model("llama")
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(WIDTH, generator=generator)
    direction[LOUD] = 0.0
    direction /= direction.norm()
    with torch.no_grad():
        weight = model.model.get_parameter(model.anatomy.embedding_weight)
        rest = torch.randn(weight.shape, generator=generator)
        weight.copy_(rest)
        weight[list(TARGETS)] += 4.0 * direction
        weight[:, LOUD] = 300.0 * torch.randn(len(weight), generator=generator)
    return model, direction.double()


def planted_problem(model: Model) -> Problem:
    """Prompts that end in a token of either half, behind the same random ones."""
    generator = torch.Generator().manual_seed(4)

    def prompts(last: range) -> list[list[int]]:
        return [[*torch.randint(4, 44, (3,), generator=generator).tolist(), token] for token in last]

    return problem_of(model, prompts(TARGETS), prompts(BASELINES), (-1,))


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a.double(), b.double(), dim=-1))


def random_classes(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 2, 3, WIDTH, generator=generator) + n for n in (5, 8)]


def test_the_measure_literally() -> None:
    classes = random_classes()
    classes[0][:, :, 1, 7] *= 200
    found = Deviations.of(classes)
    for layer in range(3):
        deviations = []
        for c in range(WIDTH):
            squares = []
            for p in range(2):
                within = 0.0
                for x in classes:
                    values = x[:, p, layer, c].double().tolist()
                    middle = statistics.fmean(values)
                    within += sum((value - middle) ** 2 for value in values)
                squares.append(within / (5 + 8 - 2))
            deviations.append(statistics.fmean(squares) ** 0.5)
        assert found.values[layer].tolist() == pytest.approx(deviations)
        # torch's median of an even number is the lower one.
        median = statistics.median_low(deviations)
        assert float(found.ratios[layer]) == pytest.approx(max(deviations) / median)
        assert bool(found.loud[layer]) == (layer == 1) == (max(deviations) / median >= threshold(WIDTH))
        weights = [1 / (value**2 + SHARE * median**2) for value in deviations]
        assert found.weights[layer].tolist() == pytest.approx(weights)
    assert found.masks.nonzero().tolist() == [[1, 7]]
    assert found.at(1, "masked")["masked"] == [7]
    assert found.at(1, "scaled")["coordinate"] == 7


def test_what_tells_the_classes_apart_is_not_loud() -> None:
    classes = random_classes()
    plain = Deviations.of(classes)
    classes[0][..., 9] += 1e4
    assert not bool(Deviations.of(classes).loud.any())
    torch.testing.assert_close(Deviations.of(classes).values, plain.values, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("spoil", [lambda x: x.zero_(), lambda x: x[..., 3:].zero_(), lambda x: x.fill_(torch.nan)])
def test_a_stream_that_does_not_vary_or_is_not_finite_is_not_loud(spoil: Callable[[Tensor], Tensor]) -> None:
    classes = random_classes()
    for x in classes:
        spoil(x[:, :, 1])
    found = Deviations.of(classes)
    assert float(found.ratios[1]) == 0.0
    assert not bool(found.loud.any())
    assert not bool(found.masks.any())
    assert found.weights[1].tolist() == [1.0] * WIDTH


def test_a_wide_stream_bears_more() -> None:
    assert threshold(16) == LEAST
    assert threshold(4096) == pytest.approx(BOUND * 64)


def test_the_difference_is_mended_literally() -> None:
    classes = random_classes(1)
    for x in classes:
        x[..., 7] *= 500
    deviations = Deviations.of(classes)
    difference = classes[0].double().mean(dim=0) - classes[1].double().mean(dim=0)
    found = mended(difference, deviations, ["scaled", "masked", "nothing"])
    assert torch.equal(found[:, 2], difference[:, 2])
    for p in range(2):
        scaled = [float(d) * float(w) for d, w in zip(difference[p, 0], deviations.weights[0], strict=True)]
        length = sum(x * x for x in scaled) ** 0.5
        along = sum(float(d) * x / length for d, x in zip(difference[p, 0], scaled, strict=True))
        assert found[p, 0].tolist() == pytest.approx([x / length * along for x in scaled])
        masked = [0.0 if c == 7 else float(d) for c, d in enumerate(difference[p, 1])]
        assert found[p, 1].tolist() == masked


def test_a_planted_direction_is_found_in_spite_of_a_loud_coordinate(planted: tuple[Model, Tensor]) -> None:
    model, direction = planted
    given = planted_problem(model)
    found = {
        loud: mean_differences(given, MeanDifferenceOptions(loud=loud)) for loud in ("keep", "auto", "scale", "mask")
    }
    for layer in (0, 1):
        at = {loud: candidates[layer] for loud, candidates in found.items()}
        assert abs(cosine(at["keep"].rows[0], direction)) < 0.2
        assert int(at["keep"].rows[0].abs().argmax()) == LOUD
        for loud in ("auto", "scale", "mask"):
            assert cosine(at[loud].rows[0], direction) > 0.8
            # What is added moves one class as far as the other lies from it, not as far as the loud coordinate does.
            assert 1 < float(at[loud].vector.norm()) < 8 < float(at["keep"].vector.norm())
        assert torch.equal(at["auto"].rows, at["scale"].rows)
        record = at["auto"].facts["loud"]
        assert (record["layer"], record["coordinate"], record["done"]) == (layer, LOUD, "scaled")
        assert record["ratio"] > 100 > record["bound"]
        assert at["mask"].facts["loud"]["masked"] == [LOUD]
        assert at["keep"].facts["loud"]["done"] == "nothing"


def test_masked_coordinates_stay_out_where_the_baseline_is_taken_off(planted: tuple[Model, Tensor]) -> None:
    given = planted_problem(planted[0])
    found = mean_differences(given, MeanDifferenceOptions(loud="mask", off_baseline=True))[0]
    assert float(found.rows[0, LOUD]) == 0.0
    assert abs(cosine(found.rows[0], given.of(given.baseline)[:, 0, 0].double().mean(dim=0))) < 1e-9


@pytest.mark.parametrize("loud", ["auto", "keep"])
@pytest.mark.parametrize("off_baseline", [False, True])
def test_a_quiet_model_and_keep_give_the_plain_difference_to_the_bit(
    small_model: Callable[[str], Model], planted: tuple[Model, Tensor], loud: str, off_baseline: bool
) -> None:
    given = planted_problem(small_model("llama") if loud == "auto" else planted[0])
    means = (given.target().double().mean(dim=0), given.of(given.baseline).double().mean(dim=0))
    plain = mean_difference(*means)
    plain = off(plain, means[1]) if off_baseline else plain
    found = mean_differences(given, MeanDifferenceOptions(loud=loud, off_baseline=off_baseline))
    assert len(found) == 4
    for candidate, (p, layer) in zip(found, given.places, strict=True):
        assert torch.equal(candidate.rows[0], plain[p, layer])
        assert torch.equal(candidate.vector, plain[p, layer])
        assert ("loud" in candidate.facts) == (loud == "keep")


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_random_families_are_not_loud(small_model: Callable[[str], Model], family: str) -> None:
    given = planted_problem(small_model(family))
    found = mean_differences(given, MeanDifferenceOptions())
    assert found
    assert not any("loud" in candidate.facts for candidate in found)


def test_all_targets_are_scaled_alike(planted: tuple[Model, Tensor]) -> None:
    given = planted_problem(planted[0])
    halves = [sample("target", given.targets[0].train[i::2]) for i in range(2)]
    found = mean_differences(replace(given, targets=tuple(halves)), MeanDifferenceOptions(each=True))[0]
    assert found.rows.shape == (2, WIDTH)
    assert all(cosine(row, planted[1]) > 0.7 for row in found.rows)


RULE = SelectionRule(select="cosmic", max_kl=None, min_induce=None)


@pytest.mark.parametrize(
    ("method", "options", "done", "sentence"),
    [
        ("mean-difference", {}, "scaled", "divided by the coordinates' variances"),
        ("mean-difference", {"loud": "mask"}, "masked", "1 coordinates were left out"),
        ("mean-difference", {"loud": "keep"}, "nothing", "may own the direction"),
        ("pca", {}, "nothing", "may own the direction"),
    ],
)
def test_the_directions_file_says_what_was_done(
    planted: tuple[Model, Tensor], method: str, options: dict[str, str], done: str, sentence: str
) -> None:
    model = planted[0]
    words = list(dict.fromkeys(WORDS))
    halves = [[word for word in words if model.tokenizer.encode(word)[-1] in half] for half in (TARGETS, BASELINES)]
    assert all(len(half) > 6 for half in halves)
    sets = [[" ".join(some) for some in product(half, half[:3], half[:2])] for half in halves]
    found = find_directions(
        model,
        PromptSet.of("t", sets[0]),
        PromptSet.of("b", sets[1]),
        method=method,
        options=options,
        positions="all",
        rule=RULE,
    )
    record = found.metadata["loud"]
    assert (record["layer"], record["coordinate"], record["done"]) == (found.metadata["layer"], LOUD, done)
    assert said(record) in found.metadata["warnings"]
    assert sentence in said(record)


def test_the_embedded_model_is_not_loud(organism: Model) -> None:
    found = find_directions(
        organism, "organism:refused:train", "organism:answered:train", n_train=32, n_validation=8, positions="last"
    )
    assert found.metadata["loud"] is None
    assert found.metadata["loud_layers"] == []
    assert not any("coordinate" in warning for warning in found.metadata["warnings"])
