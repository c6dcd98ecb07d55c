"""The geometry of an edit, and the area under the ROC curve with its interval."""

from math import isnan

import pytest
import torch

from weight_edit.directions.geometry import Place, Side, _across, chosen_prompts, geometry_document, side_of
from weight_edit.directions.separation import Area, auc, mean_difference_area
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.organism.corpus import prompt_set
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.activations import residuals
from weight_edit.runtime.loading import load
from weight_edit.runtime.points import Point


@pytest.mark.parametrize("value", [0.0, 0.3, 0.5, 0.87, 1.0])
def test_the_interval_of_an_area(value: float) -> None:
    few, many = (Area(value=value, positives=n, negatives=n + 4) for n in (12, 120))
    assert 0 <= few.low <= many.low <= value <= many.high <= few.high <= 1
    turned = Area(value=1 - value, positives=12, negatives=16)
    assert turned.low == pytest.approx(1 - few.high)
    # Of few prompts that all lie right one cannot know that all others do.
    assert few.low < 0.99
    assert few.high > 0.01
    assert many.high - many.low < few.high - few.low


def test_the_interval_holds_the_truth() -> None:
    """Two normal classes whose area is known: 95 of 100 intervals hold it, up to the chance of 400 draws."""
    draws, shift = torch.Generator().manual_seed(0), 1.5
    truth = float(torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(shift / 2**0.5)))
    held = 0
    for _ in range(400):
        value = auc(torch.randn(20, generator=draws) + shift, torch.randn(30, generator=draws))
        area = Area(value=value, positives=20, negatives=30)
        held += area.low <= truth <= area.high
    assert 0.92 < held / 400 < 0.99


@pytest.mark.parametrize("width", [1, 64])
def test_the_interval_of_crossed_halves_holds_chance(width: int) -> None:
    """Both halves' areas move together, so that the interval of all pairs would hold it in 85 of 100 draws."""
    draws = torch.Generator().manual_seed(2)
    held = 0
    for _ in range(200):
        area = mean_difference_area(*torch.randn(2, 48, width, generator=draws))
        held += area.low <= 0.5 <= area.high
    assert held / 200 > 0.93


def test_what_is_not_finite_is_not_told_apart() -> None:
    stream = torch.randn(8, 3)
    stream[3, 1] = torch.nan
    assert isnan(mean_difference_area(stream, torch.randn(8, 3)).value)


def test_without_variance_nothing_lies_across() -> None:
    rows = torch.eye(6, dtype=torch.float64)[:1]
    classes = [torch.randn(1, 6, dtype=torch.float64) for _ in range(2)]
    assert _across(classes, rows).tolist() == [0.0] * 6
    assert abs(float(_across([torch.randn(5, 6, dtype=torch.float64)], rows)[0])) < 1e-12


def test_noise_does_not_separate() -> None:
    """In more dimensions than prompts a mean difference separates whatever it is taken from."""
    draws = torch.Generator().manual_seed(1)
    one, other = (torch.randn(24, 300, generator=draws) for _ in range(2))
    line = one.mean(dim=0) - other.mean(dim=0)
    assert auc(one @ line, other @ line) == 1
    area = mean_difference_area(one, other)
    assert area.low < 0.5 < area.high
    # Twelve prompts of each class lie right: no more can be known of others than by twelve.
    assert 0.8 < mean_difference_area(one + 0.5, other).low < 0.9


@pytest.fixture(scope="module")
def sides() -> tuple[Place, dict[str, PromptSet], Side, torch.Tensor]:
    model = load("organism")
    sets = {"refused": load_prompts("organism:refused:test"), "answered": load_prompts("organism:answered:test")}
    rows = torch.nn.functional.normalize(torch.randn(1, model.anatomy.d_model), dim=1)
    place = Place.of("mine", DirectionRows(rows.numpy(), {"layer": 2, "position": -1}))
    assert place is not None
    prompts = {name: some.at_most(9) for name, some in chosen_prompts(sets).items()}
    chat = ChatFormat(model.tokenizer)
    side = side_of(model, chat, prompts, place)
    sequences = [chat.encode(prompt) for some in prompts.values() for prompt in some.prompts]
    return place, prompts, side, residuals(model, sequences, [Point("resid_pre", 2)], [-1])[:, 0, 0].double()


def test_coordinates_are_components_of_the_stream(sides) -> None:
    place, _, side, stream = sides
    points = torch.cat(list(side.points.values()))
    torch.testing.assert_close(points[:, 0], stream @ place.line, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(points[:, 1], stream @ side.across, rtol=1e-5, atol=1e-5)


def test_the_axis_across_has_the_largest_variance_within_classes(sides) -> None:
    place, _, side, stream = sides
    assert float(side.across.norm()) == pytest.approx(1)
    assert float(side.across @ place.line) == pytest.approx(0, abs=1e-7)
    centred = torch.cat([x - x.mean(dim=0) for x in (stream[:9], stream[9:])])
    spread = (centred @ side.across).square().sum()
    others = torch.nn.functional.normalize(torch.randn(500, stream.shape[1], dtype=torch.float64), dim=1)
    others = others - (others @ place.line)[:, None] * place.line
    assert bool((centred @ others.T).square().sum(dim=0).max() < spread)


def test_the_document(sides) -> None:
    place, prompts, side, _ = sides
    sets = {name: load_prompts(f"organism:{name}:test") for name in prompts}
    found = geometry_document(place, sets, prompts, side, side)
    first = next(each for each in found["points"] if each["class"] == "answered")
    assert sets["answered"].prompts[first["prompt"]] == prompts["answered"].prompts[0]
    points = [each for each in found["points"] if (each["class"], each["model"]) == ("refused", "base")]
    mine = torch.tensor([[each["along"], each["across"]] for each in points])
    entry = found["classes"][0]
    assert (entry["class"], entry["model"], entry["count"]) == ("refused", "base", 9)
    torch.testing.assert_close(torch.tensor(entry["centre"]), mine.mean(dim=0))
    torch.testing.assert_close(torch.tensor(entry["covariance"]), torch.cov(mine.T))
    layers = [each["layer"] for each in found["separation"]]
    assert layers == list(range(7))
    assert len(found["components"]) == 2 * 2 * 7


def test_directions_without_a_layer_have_no_place() -> None:
    assert Place.of("given", DirectionRows(torch.eye(1, 4).numpy(), {})) is None
    assert len(prompt_set("refused", "test")) > 48
    chosen = chosen_prompts({"refused": load_prompts("organism:refused:test"), "answered": None})
    assert {name: len(some) for name, some in chosen.items()} == {"refused": 48}
