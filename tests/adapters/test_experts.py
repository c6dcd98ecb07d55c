"""Adapters of mixtures as PEFT applies them: stacks of experts, experts apart on disk, biases, shared experts."""

from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel

from tests.helpers.edit_kinds import directions
from tests.helpers.families import save_family
from tests.helpers.family_models import load, logits, rows
from weight_edit.adapters.adapter import adapter
from weight_edit.anatomy.narrow.small import narrow_model
from weight_edit.baking.bake import bake, steps_of
from weight_edit.errors import UnsupportedError
from weight_edit.inspection.catalogue.samples import sample
from weight_edit.plan.step import EditStep
from weight_edit.runtime.adapters import with_adapter
from weight_edit.runtime.loading import Model


def saved(family: str, folder: Path) -> Path:
    narrow_model(sample(family)).save_pretrained(folder)
    return folder


def differences(base: Path, steps: list[EditStep], place: Path, mode: str = "untie") -> tuple[float, float, float]:
    """Between the baked model and the adapter, as it is served and merged; and between the bake and the base."""
    bake(base, steps, place / "out", embeddings=mode)
    adapter(base, steps, place / "lora", embeddings=mode)
    wanted, plain = logits(load(place / "out")), logits(load(base))
    model = PeftModel.from_pretrained(load(base), str(place / "lora")).eval()
    served = logits(model)
    # `evaluate` applies it, too, and finds no tensor left over or missing.
    applied = with_adapter(Model.from_parts(load(base), None), place / "lora")
    assert (logits(applied.model) - served).abs().max() < 1e-6
    merged = logits(model.merge_and_unload())
    return tuple(float(each.abs().max()) for each in (served - wanted, merged - wanted, plain - wanted))  # type: ignore[return-value]


def test_several_edits_of_stacked_experts(tmp_path: Path) -> None:
    """Those of gpt-oss have biases and their inputs first; routers and experts read through what is turned."""
    base = save_family("gpt_oss", tmp_path / "base")
    steps = [
        EditStep(directions=directions(1, seed=3)),
        EditStep(directions=directions(1, seed=4), strength=0.5),
        EditStep(directions=directions(1, seed=5), kind="reflect", at=(1,)),
    ]
    served, merged, moved = differences(base, steps, tmp_path)
    assert max(served, merged) < 1e-4 < 0.1 < moved


def test_a_shared_expert_is_no_expert_whatever_it_is_called(tmp_path: Path) -> None:
    """PEFT takes a `down_proj` of this family for the experts' stack."""
    base = saved("qwen2_moe", tmp_path / "base")
    served, merged, moved = differences(base, steps_of(rows(2)), tmp_path)
    assert max(served, merged) < 1e-4 < 0.1 < moved
    names = adapter(base, rows(1), tmp_path / "again").modules
    assert any(name.endswith("shared_expert.down_proj") for name in names)
    assert any(name.endswith("experts.down_proj") for name in names)


def test_embeddings_that_look_up_other_rows_are_adapted_as_parameters(tmp_path: Path) -> None:
    """OPT's positions begin at 2: PEFT's layer for embeddings would look up those that it is given."""
    served, merged, moved = differences(saved("opt", tmp_path / "base"), steps_of(rows(1)), tmp_path)
    assert max(served, merged) < 1e-4 < 0.1 < moved


def test_experts_that_another_module_reads_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.tuners.lora.layer import ParamWrapper

    def forward(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        return self.base_layer(x, *args, **kwargs)

    base = save_family("mixtral", tmp_path / "base")
    # As if the parameter were used while no module of its own runs.
    monkeypatch.setattr(ParamWrapper, "forward", forward)
    with pytest.raises(UnsupportedError, match=r"experts\.down_proj gives logits that differ by .* use bake"):
        adapter(base, rows(1), tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_a_bias_of_its_own_goes_with_no_experts(tmp_path: Path) -> None:
    base = save_family("mixtral", tmp_path / "base")
    steps = [EditStep(directions=directions(1)), EditStep(directions=directions(1), kind="add", at=(1,))]
    with pytest.raises(UnsupportedError, match="bias"):
        adapter(base, steps, tmp_path / "lora", embeddings="skip")


@pytest.mark.parametrize("kind", [ValueError, TypeError, NotImplementedError, RuntimeError])
def test_what_peft_refuses_is_refused_by_name(
    kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inject(config: Any, model: Any) -> None:
        raise kind("no layer for this")

    base = save_family("llama", tmp_path / "base")
    monkeypatch.setattr("peft.inject_adapter_in_model", inject)
    with pytest.raises(UnsupportedError, match="cannot carry this edit: no layer for this; use bake"):
        adapter(base, rows(1), tmp_path / "lora")
    monkeypatch.setattr("weight_edit.adapters.peft_adapter.factors_of", lambda *given: [])
    with pytest.raises(UnsupportedError, match="nothing of the model changes"):
        adapter(base, rows(1), tmp_path / "lora")
