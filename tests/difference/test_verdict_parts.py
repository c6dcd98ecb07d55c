"""Pieces of a verdict by themselves: what carries, what is kept in memory, what a recipe says."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import other_tools as tools
from tests.helpers.difference_samples import save_tensors
from weight_edit.difference import collecting, samples
from weight_edit.difference.collecting import _folded
from weight_edit.difference.diff import diff
from weight_edit.difference.evidence import Evidence, VectorChange
from weight_edit.difference.found_recipe import Place, along_directions
from weight_edit.difference.model_parts import ModelParts, Part
from weight_edit.difference.operators.ablation import MOST, ablation
from weight_edit.difference.operators.common import common_directions
from weight_edit.difference.operators.elementwise import off
from weight_edit.difference.operators.fit import OperatorFit, fit_of
from weight_edit.difference.samples import Sample
from weight_edit.difference.tensor_verdict import TensorVerdict, judge
from weight_edit.difference.verdict import verdict

WIDTH, VECTORS = 48, 80


def sample(a: np.ndarray, b: np.ndarray) -> Sample:
    """All vectors of one float32 matrix."""
    unit = np.exp2(np.floor(np.log2(np.maximum(np.abs(b), 1e-30)))) * 2.0**-23
    lengths = [np.linalg.norm(values, axis=1) for values in (a, b)]
    return Sample(
        name="x",
        side="columns",
        a=a,
        b=b,
        unit=unit,
        lengths_a=lengths[0],
        lengths_b=lengths[1],
        peaks=np.abs(b).max(1),
        first=a.shape[1],
        slab=0,
        whole=True,
        vectors=a.shape[1],
        changed=int((a != b).any(0).sum()),
        coded=False,
    )


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(np.float64)


def products(v: np.ndarray) -> tuple[np.ndarray, float]:
    return np.zeros(len(v)), 0.0


def test_a_fit_says_nothing_of_the_vectors_that_it_was_fitted_to() -> None:
    """Forty replaced vectors of forty: their differences span all of them, and predict no others."""
    a = random(WIDTH, VECTORS)
    b = a.copy()
    b[:, :40] = 0
    given = sample(a, b)
    fitted, judged = given.halves
    assert fitted.a.shape[1] == judged.a.shape[1] == 20
    span = np.linalg.qr(fitted.change)[0]
    assert fit_of(ablation(fitted, span), fitted).explained > 0.999
    assert fit_of(ablation(fitted, span), judged).explained < 0.9
    found = judge(given, None, span, None, products)
    assert found.edit is None
    assert found.component is None


def test_shares_are_taken_over_numbers_that_differ() -> None:
    a = random(100, 100)
    b = a.copy()
    b[0, :5] += 1
    assert off(a, b, a, np.full_like(a, 1e-9)) == 1.0
    assert off(a, b, b, np.full_like(a, 1e-9)) == 0.0
    assert off(a, a, a, np.full_like(a, 1e-9)) == 1.0


def fit(name: str) -> OperatorFit:
    a = random(WIDTH, VECTORS, seed=len(name))
    v = np.eye(WIDTH)[:, :1] + 0.01
    v /= np.linalg.norm(v)
    given = sample(a, a - v @ (v.T @ a) + 1e-2 * random(WIDTH, VECTORS, seed=7))
    return fit_of(ablation(given.halves[0], v, refined=False), given.halves[1])


def found(name: str, innocent: str | None, component: OperatorFit | None) -> TensorVerdict:
    return TensorVerdict(
        name=name,
        part=Part(role="mlp", layer=0, side="columns"),
        side="columns",
        innocent=innocent,
        innocent_how="",
        edit=None,
        component=component,
        rest="quantisation",
        rest_how="",
        rank=None,
        weak=False,
    )


def test_quantised_tensors_of_which_few_lost_a_direction_are_not_certainly_quantised() -> None:
    edited = [found(f"e{n}", "quantisation", fit(f"e{n}")) for n in range(2)]
    others = [found(f"o{n}", "quantisation", None) for n in range(3)]
    parts = ModelParts(parts={each.name: each.part for each in (*edited, *others) if each.part is not None}, layers=1)
    said = verdict(Evidence(matrices=[*edited, *others], parts=parts, width=WIDTH))
    assert said.made_with == ("quantisation", "undecided")
    assert said.confidence == "undecided"
    assert not said.edited
    alone = verdict(Evidence(matrices=others, parts=parts, width=WIDTH))
    assert (alone.made_with, alone.confidence) == (("quantisation",), "certain")
    one = verdict(Evidence(matrices=[edited[0], *others], parts=parts, width=WIDTH))
    assert one.confidence == "likely"
    assert any("1 tensors lost" in sentence for sentence in one.evidence)


@pytest.mark.parametrize(("strength", "written"), [(2.0001, 2.0), (1.9995, 2.0), (0.4, 0.4)])
def test_a_recipe_has_the_strength_that_was_meant(strength: float, written: float) -> None:
    places = [Place(role, 0, strength, np.eye(8)[:1]) for role in ("attention", "mlp")]
    made = along_directions("ablation", places, np.eye(8)[:1], 1)
    assert made is not None
    assert made["edit"]["strength"] == written
    assert along_directions("ablation", [Place("mlp", 0, 2.1, np.eye(8)[:1])], np.eye(8)[:1], 1) is None


@pytest.mark.parametrize(("before", "after", "offset"), [(0.3, 1.0, 0.0), (0.3, 0.0, 1.0), (0.3, 0.5, 1.0)])
def test_folded_gains_are_those_of_the_norm(before: float, after: float, offset: float) -> None:
    """The weight is the gain, or 1 less; what it became may be any number."""
    gains = before + 0.1 * np.abs(random(WIDTH))
    a = random(WIDTH, VECTORS)
    given = sample(a, a * ((gains + offset) / (after + offset))[:, None])
    change = VectorChange("n", gains, np.full(WIDTH, after), np.full(WIDTH, 1e-7))
    part = Part(role="reader", layer=0, side="columns", reads_behind="n")
    folded = _folded(given, part, {"n": change})
    assert np.allclose(folded.a, folded.b)


def test_no_more_is_kept_of_a_tensor_than_a_few_directions() -> None:
    a = random(90, 200)
    few, many = (a + random(90, rank, seed=1) @ random(rank, 200, seed=2) for rank in (5, MOST + 1))
    small = judge(sample(a, few), None, np.zeros((90, 0)), None, products)
    assert small.rank == 5
    assert small.left is not None
    assert small.left.dtype == np.float32
    large = judge(sample(a, many), None, np.zeros((90, 0)), None, products)
    assert large.rank == MOST + 1
    assert large.left is None
    v = np.linalg.qr(random(90, 1))[0]
    edited = judge(sample(a, a - v @ (v.T @ a)), None, v, None, products)
    assert edited.edit is not None
    with pytest.raises(ValueError, match="no longer"):
        edited.edit.rule.predict(sample(a, a))


def test_common_directions_of_many_tensors() -> None:
    shared = np.linalg.qr(random(WIDTH, 2))[0].T
    rows, alike = common_directions([shared] * 300, WIDTH)
    assert alike > 0.9999
    assert np.linalg.svd(rows @ shared.T, compute_uv=False).min() > 0.9999
    apart = common_directions([np.linalg.qr(random(WIDTH, 2, seed=n))[0].T for n in range(300)], WIDTH)
    assert apart[1] < 0.2


def test_an_eraser_of_few_tensors_is_fitted_to_more_vectors_than_it_has_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "NUMBERS", 1 << 12)
    generator = torch.Generator().manual_seed(0)
    names = (tools.EMBEDDING, "model.layers.0.self_attn.o_proj.weight", "model.layers.0.mlp.down_proj.weight")
    shapes = ((768, 400), (400, 768), (400, 768))
    before = {name: 0.02 * torch.randn(*shape, generator=generator) for name, shape in zip(names, shapes, strict=True)}
    left, right = tools.unit(400, 1), tools.unit(400, 2)
    right = left + 0.7 * right
    after = tools.erased(before, left, right / (right @ left))
    said = diff(
        save_tensors(tmp_path / "a", before, 400), save_tensors(tmp_path / "b", after, 400), verdict=True
    ).verdict
    assert said is not None
    assert said.made_with == ("oblique erasure",)


def test_an_eraser_that_was_not_looked_for_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "WIDEST", 32)
    before = {
        f"model.layers.{n}.mlp.down_proj.weight": torch.tensor(random(WIDTH, 96, seed=n)).float() for n in range(3)
    }
    after = tools.low_rank({**before, tools.EMBEDDING: torch.zeros(8, WIDTH)}, 2)
    sides = (
        save_tensors(tmp_path / "a", before, WIDTH),
        save_tensors(tmp_path / "b", {n: after[n] for n in before}, WIDTH),
    )
    said = diff(*sides, verdict=True).verdict
    assert said is not None
    assert any("wider than" in note for note in said.notes)
