"""Verification in little memory: the same figures by parts of the vocabulary and from disk, one model at a time."""

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.families import save_family
from tests.helpers.small_tokenizer import word_tokenizer
from tests.helpers.verification_samples import PROMPTS, rows
from weight_edit.baking.bake import bake
from weight_edit.evaluation.kl import kl_divergence
from weight_edit.plan.step import EditStep
from weight_edit.runtime import head as heads
from weight_edit.runtime.loading import Model, load
from weight_edit.verification import model_checks
from weight_edit.verification.faithfulness import Comparison
from weight_edit.verification.verify import Verification, verify

EDITS = {
    # The unembedding is hooked where it is tied, and a parameter changed where lengths are kept.
    "llama": EditStep(directions=rows().rows),
    "llama-tied": EditStep(directions=rows().rows),
    "gemma2": EditStep(directions=rows().rows, kind="norm-preserving"),
    "mixtral": EditStep(directions=rows().rows),
}


def figures(checked: Verification) -> dict[str, float]:
    """Every number that the models' passes gave, by its place."""
    found: dict[str, float] = {}

    def collect(value: Any, place: str) -> None:
        if isinstance(value, dict):
            for key, each in value.items():
                collect(each, f"{place}.{key}")
        elif isinstance(value, float):
            found[place] = value

    whole = checked.to_dict()
    collect({"by_dtype": whole["by_dtype"], "noise": whole["noise"]}, "")
    return found


@pytest.fixture(scope="module", params=list(EDITS))
def baked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bfloat16 `base` and its edit `out`."""
    folder = tmp_path_factory.mktemp("parts")
    save_family(request.param, folder / "base", dtype=torch.bfloat16)
    word_tokenizer().save_pretrained(folder / "base")
    bake(folder / "base", [EDITS[request.param]], folder / "out")
    return folder


@pytest.fixture(scope="module")
def honest(baked: Path) -> Verification:
    return verify(baked / "base", baked / "out", prompts=PROMPTS)


def agree(found: Verification, wanted: Verification) -> None:
    """All figures are the same but for rounding; those of random numbers, drawn in another order, are of one size."""
    mine, other = figures(found), figures(wanted)
    assert mine.keys() == other.keys()
    drawn = {place for place in other if "rounded_weights" in place or "allowed" in place}
    assert len(other.keys() - drawn) > 20 > len(drawn) > 4
    for place, value in other.items():
        assert mine[place] == pytest.approx(value, rel=0.7 if place in drawn else 1e-3, abs=1e-6), place
    assert found.problems == wanted.problems == ()


def test_figures_do_not_depend_on_the_parts(baked: Path, honest: Verification, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "SLICE", 64 * 10)
    agree(verify(baked / "base", baked / "out", prompts=PROMPTS), honest)


def test_figures_from_disk_are_those_in_memory(baked: Path, honest: Verification) -> None:
    agree(verify(baked / "base", baked / "out", prompts=PROMPTS, offload=True), honest)


@pytest.mark.parametrize("offload", [False, True])
def test_the_base_is_let_go_before_the_edit_is_loaded(
    baked: Path, monkeypatch: pytest.MonkeyPatch, offload: bool
) -> None:
    loaded: list[weakref.ref[Model]] = []

    def watched(*args: Any, **kwargs: Any) -> Model:
        assert [model for model in loaded if model() is not None] == []
        model = load(*args, **kwargs)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(model_checks, "load", watched)
    assert verify(baked / "base", baked / "out", prompts=PROMPTS, offload=offload).passed
    assert len(loaded) == 2, "each model is loaded once for both dtypes"


def test_parts_of_logits_compare_as_the_whole_does() -> None:
    generator = torch.Generator().manual_seed(0)
    p = 5 * torch.randn(30, 500, generator=generator, dtype=torch.float64)
    q = p + torch.randn(30, 500, generator=generator, dtype=torch.float64)
    # A whole part without probability, and a token that the second gives none.
    p[:, 100:200] = -torch.inf
    q[3, 400] = -torch.inf
    in_parts = Comparison()
    for at in range(0, 500, 70):
        in_parts.add_part("all", p[:20, at : at + 70], q[:20, at : at + 70])
        in_parts.add_part("rest", p[20:, at : at + 70], q[20:, at : at + 70])
    kept = torch.tensor([row for row in range(30) if row != 3])
    without = Comparison()
    for at in range(0, 500, 70):
        without.add_part(0, p[kept, at : at + 70], q[kept, at : at + 70])
    assert in_parts.result.kl == torch.inf
    assert without.result.kl == pytest.approx(float(kl_divergence(p[kept], q[kept]).mean()), rel=1e-12)
    assert in_parts.result.argmax == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).double().mean()))
    assert in_parts.result.tokens == 30


def test_a_logit_that_is_no_number_shows_in_every_figure_of_a_comparison() -> None:
    p, q = torch.zeros(2, 8), torch.zeros(2, 8)
    q[1, 6] = float("nan")
    comparison = Comparison()
    for at in (0, 4):
        comparison.add_part(0, p[:, at : at + 4], q[:, at : at + 4])
    result = comparison.result
    assert all(value != value for value in (result.largest, result.mean, result.kl))
