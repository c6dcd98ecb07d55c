"""A verdict names what a model was made with, and calls no fine-tune and no rounding an edit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.helpers import other_tools as tools
from tests.helpers.difference_samples import cosines, directions, llama_parts, save_tensors
from weight_edit.baking.bake import bake
from weight_edit.difference import verdict_of_files
from weight_edit.difference.diff import diff
from weight_edit.difference.verdict_result import Verdict
from weight_edit.errors import UsageError
from weight_edit.plan.step import EditStep
from weight_edit.recipe.recipe import load_recipe
from weight_edit.runs.given_directions import given_directions

assert transformers.__version__, "loaded here, no process of its own asks it what a config means"
WIDTH, LAYERS = 64, 3
V = tools.unit(WIDTH, 1)
EACH = torch.stack([V + 0.5 * tools.unit(WIDTH, 10 + layer) for layer in range(LAYERS)])
EACH /= EACH.norm(dim=1, keepdim=True)
MANY = torch.linalg.qr(torch.randn(WIDTH, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64))[0].T
RIGHT = (V + 0.7 * tools.unit(WIDTH, 5)) / ((V + 0.7 * tools.unit(WIDTH, 5)) @ V)


def model(dtype: torch.dtype = torch.bfloat16) -> tools.Tensors:
    """A model's tensors by their names in Llama, with rows and columns of uneven size; no architecture is like it."""
    generator = torch.Generator().manual_seed(0)

    def uneven(*shape: int) -> torch.Tensor:
        scales = [torch.randn(n, generator=generator).mul(0.4).exp() for n in shape]
        return (0.02 * torch.randn(*shape, generator=generator) * scales[0][:, None] * scales[1]).to(dtype)

    found = {tools.EMBEDDING: uneven(4 * WIDTH, WIDTH)}
    for layer in range(LAYERS):
        found[f"model.layers.{layer}.self_attn.o_proj.weight"] = uneven(WIDTH, WIDTH)
        found[f"model.layers.{layer}.mlp.up_proj.weight"] = uneven(2 * WIDTH, WIDTH)
        found[f"model.layers.{layer}.mlp.down_proj.weight"] = uneven(WIDTH, 2 * WIDTH)
    return found


def told(root: Path, before: tools.Tensors, after: tools.Tensors, *, known: bool = True) -> Verdict:
    """The verdict, with the parts that Llama's anatomy would give, or without any."""
    with pytest.MonkeyPatch.context() as patched:
        if known:
            patched.setattr(verdict_of_files, "model_parts", lambda source, checkpoint: llama_parts(before))
        return _told(root, before, after)


def _told(root: Path, before: tools.Tensors, after: tools.Tensors) -> Verdict:
    found = diff(save_tensors(root / "a", before, WIDTH), save_tensors(root / "b", after, WIDTH), verdict=True)
    assert found.verdict is not None
    assert json.loads(json.dumps(found.to_dict()))["verdict"]["made_with"] == list(found.verdict.made_with)
    return found.verdict


EDITS = {
    "ablation": lambda t: tools.ablated(t, V),
    "partial ablation": lambda t: tools.ablated(t, V, 0.4),
    "reflection": lambda t: tools.ablated(t, V, 2.0),
    "ablation with strengths by layer": lambda t: tools.heretic(t, V),
    "ablation of unit rows": lambda t: tools.heretic(t, V, "pre"),
    "norm-preserving ablation (rows)": lambda t: tools.rows_kept(t, V),
    "norm-preserving ablation (vectors)": lambda t: tools.columns_kept(t, EACH),
    "oblique erasure": lambda t: tools.erased(t, V, RIGHT),
}


@pytest.mark.parametrize("name", EDITS)
def test_edits_by_their_operators(name: str, tmp_path: Path) -> None:
    before = model(torch.float32)
    found = told(tmp_path, before, EDITS[name](before))
    assert found.made_with == (name,)
    assert found.edited
    assert found.confidence == "certain"
    if name != "norm-preserving ablation (vectors)":
        assert cosines(found.rows.astype(np.float64), V[None].numpy()).min() > 0.9999
        return
    for writer in found.writers:
        own = EACH[[tools.layer_of(writer.name)]].numpy()
        assert cosines(writer.rows, own).min() > 0.9999


@pytest.mark.parametrize("name", ["ablation", "partial ablation", "norm-preserving ablation (vectors)"])
def test_edits_in_bfloat16(name: str, tmp_path: Path) -> None:
    before = model()
    found = told(tmp_path, before, EDITS[name](before))
    assert found.made_with == (name,)
    assert found.confidence == "certain"


def test_several_directions_and_their_span(tmp_path: Path) -> None:
    before = model(torch.float32)
    found = told(tmp_path, before, tools.ablated(before, MANY))
    assert found.made_with == ("ablation",)
    assert cosines(found.rows, MANY.numpy()).min() > 0.999


def test_strengths_are_those_of_the_kernel(tmp_path: Path) -> None:
    before = model()
    found = told(tmp_path, before, tools.heretic(before, V))
    kernel = {"self_attn": (1.2, 0.65, 0.4, 0.6), "mlp": (0.9, 0.7, 0.2, 0.5)}
    for writer in found.writers:
        role = "mlp" if "mlp" in writer.name else "self_attn"
        wanted = tools.kernel_strength(tools.layer_of(writer.name), LAYERS, *kernel[role])
        assert writer.strength == pytest.approx(wanted, abs=0.03)


def _tuned(t: tools.Tensors) -> tools.Tensors:
    return tools.noisy(t, 2e-2)


INNOCENT = {
    "fine-tune or merge": _tuned,
    "low-rank update (as of a merged LoRA)": lambda t: tools.low_rank(t, 4),
    "pruning": lambda t: tools.each_matrix(t, tools.pruned),
    "scaling": lambda t: tools.each_matrix(t, lambda w: 0.97 * w),
    "rounding to another format": lambda t: {name: x.half() for name, x in t.items()},
    "no change": dict,
}


@pytest.mark.parametrize("name", INNOCENT)
def test_what_is_no_edit(name: str, tmp_path: Path) -> None:
    before = model(torch.float32)
    found = told(tmp_path, before, INNOCENT[name](before))
    assert found.made_with == (name,)
    assert not found.edited
    assert found.recipe is None
    assert not found.writers
    with pytest.raises(UsageError, match="no edit to save"):
        found.save(tmp_path / "none.yaml", "base")


@pytest.mark.parametrize("rounded", [tools.int8_rows, tools.nf4_blocks, tools.fp8_tensor])
def test_a_quantisation_is_one_and_an_edit_in_front_of_it_is_found(rounded, tmp_path: Path) -> None:
    before = model(torch.float32)
    alone = told(tmp_path / "alone", before, tools.each_matrix(before, rounded))
    assert alone.made_with == ("quantisation",)
    assert not alone.edited
    both = told(tmp_path / "both", before, tools.each_matrix(tools.ablated(before, V), rounded))
    assert both.edited
    assert both.made_with[0] == "ablation"
    assert {writer.operator for writer in both.writers} == {"ablation"}
    assert "quantisation" in both.made_with
    assert cosines(both.rows, V[None].numpy()).min() > 0.99


def test_an_ablation_under_a_fine_tune_is_told_and_not_called_certain(tmp_path: Path) -> None:
    before = model(torch.float32)
    found = told(tmp_path, before, tools.noisy(tools.ablated(before, V), 2e-2))
    assert found.made_with == ("ablation", "fine-tune or merge")
    assert found.confidence == "likely"


def test_one_edited_layer_of_a_tuned_model_is_no_edit_of_the_model(tmp_path: Path) -> None:
    before = model(torch.float32)
    made = tools.ablated(before, V, 1.0, range(0, 1))
    name = "model.layers.0.mlp.down_proj.weight"
    found = told(tmp_path, before, _tuned({**made, name: before[name]}))
    assert not found.edited
    assert found.made_with == ("fine-tune or merge",)
    assert any("1 tensors lost" in sentence for sentence in found.evidence)


def test_the_recipe_of_an_edit_bakes_it_again(tmp_path: Path) -> None:
    rows = directions(1, 128)
    bake("organism", rows, tmp_path / "b", kind="norm-preserving", strength=0.8, layers=[1, 2], embeddings="skip")
    found = diff("organism", tmp_path / "b", verdict=True)
    assert found.verdict is not None
    assert found.verdict.confidence == "certain"
    assert {writer.role for writer in found.verdict.writers} == {"attention", "mlp"}
    assert "model.embed_tokens.weight" in found.verdict.not_edited
    found.save(tmp_path / "found.yaml", model="organism")
    recipe = load_recipe(tmp_path / "found.yaml")
    given = given_directions(recipe)
    assert recipe.edit is not None
    steps = [
        EditStep(
            directions=given[step.directions or "main"], kind=step.kind, strength=step.strength, kernel=step.kernel
        )
        for step in recipe.edit.steps
    ]
    bake("organism", steps, tmp_path / "again", embeddings=recipe.edit.embeddings)
    changed = {tensor.name: tensor for tensor in found.tensors}
    for tensor in diff(tmp_path / "b", tmp_path / "again").tensors:
        assert tensor.relative is not None
        assert tensor.relative < 1e-3 * (changed[tensor.name].relative or 0)


def test_hostile_numbers_are_undecided(tmp_path: Path) -> None:
    before = model(torch.float32)
    found = told(tmp_path, before, {name: tensor * float("nan") for name, tensor in before.items()})
    assert found.made_with == ("undecided",)
    assert not found.edited


def test_another_vocabulary_alone(tmp_path: Path) -> None:
    before = model()
    longer = torch.cat([before[tools.EMBEDDING], torch.zeros(8, WIDTH, dtype=torch.bfloat16)])
    found = told(tmp_path, before, {**before, tools.EMBEDDING: longer})
    assert found.made_with == ("another vocabulary",)


def test_an_addition_is_a_bias_of_one_layer(tmp_path: Path) -> None:
    before = model()
    found = told(tmp_path, before, tools.added_as_bias(before, V, 1))
    assert found.made_with == ("addition",)
    assert found.constants == ("model.layers.1.mlp.down_proj.bias",)
    found = told(tmp_path / "c", before, {**before, "x.bias": torch.zeros(WIDTH)})
    assert not found.edited


def test_the_verdict_does_not_depend_on_the_order_of_tensors(tmp_path: Path) -> None:
    before = model()
    after = tools.heretic(before, V)
    a = save_tensors(tmp_path / "a", before, WIDTH)
    b = save_tensors(tmp_path / "b", after, WIDTH)
    other = save_tensors(tmp_path / "other", after, WIDTH)
    save_file(dict(reversed(load_file(b / "model.safetensors").items())), other / "model.safetensors")
    said = [diff(a, side, verdict=True).verdict for side in (b, other)]
    assert said[0] is not None
    assert said[1] is not None
    assert said[0].edited
    assert said[0].to_dict() == said[1].to_dict()
    assert np.array_equal(said[0].rows, said[1].rows)
