"""A verdict accuses of no edit where there was none, and is certain of nothing that it did not account for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import other_tools as tools
from tests.helpers.difference_samples import llama_parts, save_tensors
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.difference import model_parts, verdict_of_files
from weight_edit.difference.diff import diff
from weight_edit.difference.model_parts import ModelParts
from weight_edit.difference.verdict_result import Verdict
from weight_edit.errors import UnsupportedError
from weight_edit.hub.source import resolve

WIDTH = 64
V = tools.unit(WIDTH, 1)
HEAD = "lm_head.weight"
DOWN = "model.layers.0.mlp.down_proj.weight"
NORM = "model.layers.0.input_layernorm.weight"


def model(dtype: torch.dtype = torch.float32, layers: int = 1, width: int = WIDTH, tied: bool = True) -> tools.Tensors:
    """A model's tensors by their names in Llama, with readers and norms."""
    generator = torch.Generator().manual_seed(0)

    def uneven(*shape: int) -> torch.Tensor:
        scales = [torch.randn(n, generator=generator).mul(0.4).exp() for n in shape]
        return (0.02 * torch.randn(*shape, generator=generator) * scales[0][:, None] * scales[1]).to(dtype)

    found = {tools.EMBEDDING: uneven(200, width), "model.norm.weight": torch.ones(width, dtype=dtype)}
    if not tied:
        found[HEAD] = found[tools.EMBEDDING].clone()
    for layer in range(layers):
        block = f"model.layers.{layer}"
        for reader in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"):
            found[f"{block}.{reader}.weight"] = uneven(96 if "mlp" in reader else 48, width)
        found[f"{block}.self_attn.o_proj.weight"] = uneven(width, 48)
        found[f"{block}.mlp.down_proj.weight"] = uneven(width, 96)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            gains = 1 + 0.2 * torch.randn(width, generator=generator)
            found[f"{block}.{norm}.weight"] = gains.to(dtype)
    return found


def told(
    root: Path, before: tools.Tensors, after: tools.Tensors, *, parts: ModelParts | None = None, width: int = WIDTH
) -> Verdict:
    """The verdict with the parts that Llama's anatomy would give, or with others."""
    found = llama_parts(before) if parts is None else parts
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(verdict_of_files, "model_parts", lambda source, checkpoint: found)
        said = diff(save_tensors(root / "a", before, width), save_tensors(root / "b", after, width), verdict=True)
    assert said.verdict is not None
    return said.verdict


def with_rows(before: tools.Tensors, rows: torch.Tensor, numbers: slice, names: tuple[str, ...]) -> tools.Tensors:
    made = dict(before)
    for name in names:
        made[name] = before[name].clone()
        made[name][numbers] = rows.to(before[name].dtype)
    return made


OTHER = 0.05 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_one_replaced_token_is_no_edit(dtype: torch.dtype, tied: bool, tmp_path: Path) -> None:
    before = model(dtype, tied=tied)
    names = (tools.EMBEDDING,) if tied else (tools.EMBEDDING, HEAD)
    for number, row in enumerate((OTHER, before[tools.EMBEDDING].float().mean(0), before[tools.EMBEDDING][5])):
        found = told(tmp_path / str(number), before, with_rows(before, row, slice(7, 8), names))
        assert found.made_with == ("some vectors replaced",)
        assert not found.edited
        assert any("1 of 200 vectors" in sentence for sentence in found.evidence)


@pytest.mark.parametrize("count", [5, 60, 150])
def test_replaced_tokens_that_were_alike_are_no_edit(count: int, tmp_path: Path) -> None:
    """Unused tokens are one vector and a little noise: what took their place differs from them by one vector, too."""
    numbers = slice(0, count)
    alike = OTHER + 1e-5 * torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(3))
    before = with_rows(model(torch.bfloat16), alike, numbers, (tools.EMBEDDING,))
    for name, row in (("zero", torch.zeros(WIDTH)), ("new", OTHER.flip(0))):
        found = told(tmp_path / name, before, with_rows(before, row, numbers, (tools.EMBEDDING,)))
        assert not found.edited, found
        assert "ablation" not in found.said


def test_a_replaced_vector_that_no_run_of_a_sample_meets_is_seen(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    wide = {name: 0.02 * torch.randn(WIDTH, 12_000, generator=torch.Generator().manual_seed(4))}
    after = {name: wide[name].clone()}
    after[name][:, 5000] = 0.5
    found = told(tmp_path, wide, after)
    assert found.made_with == ("some vectors replaced",)
    assert "1 of 12000 vectors" in found.evidence[0]


def test_few_changed_numbers_are_no_rounding(tmp_path: Path) -> None:
    """All numbers that did not change agree with whatever leaves bfloat16 as it is."""
    width = 1200
    before = model(torch.bfloat16, width=width)
    one = torch.zeros(width, dtype=torch.float64)
    one[3] = 1.0
    found = told(tmp_path, before, tools.ablated(before, one), width=width)
    assert found.made_with == ("ablation",)
    assert np.abs(found.rows[0, 3]) > 0.999


def test_few_changed_numbers_are_no_quantisation(tmp_path: Path) -> None:
    before = tools.each_matrix(model(), tools.int8_rows)
    after = {name: tensor.clone() for name, tensor in before.items()}
    for name in after:
        if name.endswith("proj.weight"):
            flat = after[name].view(-1)
            flat[::150] *= 1.3
    found = told(tmp_path, before, after)
    assert found.made_with == ("some vectors replaced",)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_coordinate_that_all_writers_lost_is_no_pruning(dtype: torch.dtype, tmp_path: Path) -> None:
    before = model(dtype)
    one = torch.zeros(WIDTH, dtype=torch.float64)
    one[11] = 1.0
    found = told(tmp_path, before, tools.ablated(before, one))
    assert found.made_with == ("ablation",)
    assert found.confidence == "certain"


def test_a_longer_vocabulary_hides_no_edit(tmp_path: Path) -> None:
    before = model(torch.bfloat16)
    after = tools.orthogonalised(before, V)
    longer = torch.cat([after[tools.EMBEDDING], torch.ones(8, WIDTH, dtype=torch.bfloat16)])
    found = told(tmp_path / "edited", before, {**after, tools.EMBEDDING: longer})
    assert found.made_with == ("ablation", "another vocabulary")
    assert tools.EMBEDDING in [writer.name for writer in found.writers]
    noisy = torch.cat([tools.noisy(before)[tools.EMBEDDING], longer[-8:]])
    tuned = told(tmp_path / "tuned", before, {**before, tools.EMBEDDING: noisy})
    assert not tuned.edited
    assert tuned.confidence != "certain"
    assert tuned.made_with == ("fine-tune or merge", "another vocabulary")


def test_another_shape_is_no_vocabulary(tmp_path: Path) -> None:
    before = model()
    found = told(tmp_path, before, {**before, DOWN: before[DOWN][:, :80].contiguous()})
    assert found.made_with == ("undecided",)
    assert found.confidence == "undecided"
    assert DOWN in " ".join(found.evidence)


@pytest.mark.parametrize("swapped", [False, True])
def test_tensors_of_one_model_alone_are_no_certain_equality(swapped: bool, tmp_path: Path) -> None:
    small, large = model(layers=1), model(layers=2)
    before, after = (large, small) if swapped else (small, large)
    after = {**after, **{name: tensor for name, tensor in before.items() if name in after}}
    found = told(tmp_path, before, after)
    assert found.confidence != "certain"
    assert "no change" not in found.made_with
    assert "model.layers.1" in " ".join(found.evidence)


def test_tuned_norms_beside_an_edit_take_its_certainty_away(tmp_path: Path) -> None:
    before = model()
    made = tools.ablated(before, V)
    assert told(tmp_path / "alone", before, made).confidence == "certain"
    found = told(tmp_path / "norms", before, {**made, NORM: made[NORM] * 1.1})
    assert found.made_with[0] == "ablation"
    assert found.confidence == "likely"
    assert NORM in " ".join(found.evidence)


def test_tensors_without_a_place_take_certainty_away(tmp_path: Path) -> None:
    """A short convolution's weights are neither matrices nor a vector."""
    before = {**model(), "model.layers.0.conv.weight": torch.ones(WIDTH, 1, 4)}
    after = {**before, "model.layers.0.conv.weight": torch.full((WIDTH, 1, 4), 1.5)}
    alone = told(tmp_path / "alone", before, after)
    assert alone.made_with == ("undecided",)
    beside = told(tmp_path / "beside", before, tools.ablated(after, V))
    assert beside.confidence == "likely"
    assert "conv" in " ".join(beside.evidence)


def test_a_new_gain_and_tuned_biases_are_no_addition(tmp_path: Path) -> None:
    before = model()
    gain = told(tmp_path / "gain", before, {**before, "model.layers.0.q_norm.weight": torch.full((WIDTH,), 0.3)})
    assert not gain.edited
    assert gain.confidence == "undecided"
    held = {**before, "model.layers.0.mlp.down_proj.bias": OTHER}
    tuned = told(tmp_path / "tuned", held, {**held, "model.layers.0.mlp.down_proj.bias": OTHER * 1.2})
    assert not tuned.edited
    assert tuned.confidence == "undecided"
    new = told(tmp_path / "new", before, held)
    assert new.made_with == ("addition",)
    assert new.confidence == "certain"
    unknown = told(tmp_path / "unknown", before, held, parts=ModelParts(parts={}, problem="not known"))
    assert not unknown.edited


def test_a_bias_that_lost_what_its_writer_lost_is_part_of_the_ablation(tmp_path: Path) -> None:
    bias = "model.layers.0.mlp.down_proj.bias"
    before = {**model(), bias: OTHER}
    made = {**tools.ablated(before, V), bias: OTHER - V.float() * (V.float() @ OTHER)}
    found = told(tmp_path / "same", before, made)
    assert found.made_with == ("ablation",)
    assert found.confidence == "certain"
    other = told(tmp_path / "other", before, {**made, bias: OTHER - 0.02 * V.float()})
    assert other.confidence == "likely"


def test_an_ablation_under_a_fine_tune_is_found_where_the_anatomy_is_not_known(tmp_path: Path) -> None:
    """Readers, five of seven matrices, do not count against the writers."""
    before = model(layers=3)
    parts = ModelParts(parts={}, problem="not known")
    found = told(tmp_path / "both", before, tools.noisy(tools.ablated(before, V), 1e-2), parts=parts)
    assert found.made_with == ("ablation", "fine-tune or merge")
    assert found.confidence == "likely"
    assert {writer.operator for writer in found.writers} == {"ablation"}
    assert all(writer.name.endswith(tools.WRITERS) for writer in found.writers)
    alone = told(tmp_path / "alone", before, tools.ablated(before, V), parts=parts)
    assert alone.made_with == ("ablation",)
    assert alone.confidence == "likely"


@pytest.mark.parametrize(("mean_free", "confidence"), [(True, "certain"), (False, "likely")])
def test_centred_writers_are_no_edit(mean_free: bool, confidence: str, tmp_path: Path) -> None:
    before = model()
    ones = torch.full((WIDTH,), WIDTH**-0.5, dtype=torch.float64)
    found = told(tmp_path, before, tools.ablated(before, ones), parts=llama_parts(before, mean_free))
    assert found.made_with == ("centring of writers",)
    assert not found.edited
    assert found.confidence == confidence
    assert found.recipe is None


def test_a_quantised_edit_of_few_writers_is_not_passed_over(tmp_path: Path) -> None:
    before = model(layers=5)
    made = tools.each_matrix(tools.ablated(before, V, 1.0, range(1, 3)), tools.int8_rows)
    found = told(tmp_path, before, made)
    assert "quantisation" in found.made_with
    assert found.confidence == "undecided"
    assert any("along a direction that they share" in sentence for sentence in found.evidence)


def low_rank_part(weight: torch.Tensor, lost: int) -> torch.Tensor:
    """A matrix without its least singular values."""
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    values[-lost:] = 0
    return ((left * values) @ right).float()


def test_matrices_cut_to_their_leading_singular_values_are_no_edit(tmp_path: Path) -> None:
    before = model()
    for lost in (1, 8, 16):
        made = tools.each_matrix(before, lambda w, lost=lost: low_rank_part(w, lost))
        found = told(tmp_path / str(lost), before, made)
        assert not found.edited, (lost, found)
        assert found.confidence != "certain"


def test_a_reader_that_lost_another_direction_is_no_edit_beside_a_compression(tmp_path: Path) -> None:
    before = model(layers=2)
    made = tools.each_matrix(before, lambda w: low_rank_part(w, 1))
    reader = next(name for name, part in llama_parts(before).parts.items() if not part.writes and part.layer == 1)
    drawn = torch.randn(before[reader].shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    drawn /= drawn.norm()
    weight = before[reader].double()
    made[reader] = (weight - (weight @ drawn)[:, None] * drawn).float()
    found = told(tmp_path, before, made)
    assert not found.edited
    assert found.confidence != "certain"
    assert "low-rank compression" in found.made_with


def test_kept_lengths_are_seen_where_they_change_by_less_than_a_rounding(tmp_path: Path) -> None:
    before = model(torch.bfloat16, width=640)
    v = tools.unit(640, 1)
    found = told(tmp_path / "kept", before, tools.columns_kept(before, v[None]), width=640)
    assert found.made_with == ("norm-preserving ablation (vectors)",)
    plain = told(tmp_path / "plain", before, tools.ablated(before, v), width=640)
    assert plain.made_with == ("ablation",)
    assert plain.confidence == "certain"


def test_an_ablation_through_norms_of_uneven_gains_is_one_edit(tmp_path: Path) -> None:
    before = model(torch.bfloat16, layers=3, width=256)
    parts, made = dict(llama_parts(before).parts), dict(before)
    v = tools.unit(256, 1)
    for number, (name, part) in enumerate(parts.items()):
        if part.writes and part.role != "embedding":
            # As in Gemma 3, whose smallest gains are a thousandth of the largest.
            drawn = torch.randn(256, dtype=torch.float64, generator=torch.Generator().manual_seed(number))
            u = v * drawn.mul(1.5).exp()
            u /= u.norm()
            weight = before[name].double()
            made[name] = (weight - torch.outer(u, u @ weight)).bfloat16()
            parts[name] = replace(part, gains=drawn.mul(1.5).exp().numpy())
    found = told(tmp_path, before, made, parts=replace(llama_parts(before), parts=parts), width=256)
    assert (found.made_with, found.confidence, found.through_norms) == (("ablation",), "certain", True)
    assert abs(float(found.rows[0] @ v.numpy())) > 0.999
    assert all(writer.cosine is not None and writer.cosine > 0.99 for writer in found.writers)


def test_gains_folded_into_readers_are_called_so(tmp_path: Path) -> None:
    before = model(torch.bfloat16, tied=False)
    made = dict(before)
    for name, part in llama_parts(before).parts.items():
        if part.reads_behind is not None:
            made[name] = (before[name].float() * before[part.reads_behind].float()).bfloat16()
            made[part.reads_behind] = torch.ones(WIDTH, dtype=torch.bfloat16)
    found = told(tmp_path, before, made)
    assert found.made_with == ("gains folded into readers",)
    assert found.confidence == "certain"
    other = told(tmp_path / "other", before, {**made, NORM: made[NORM] * 2})
    assert other.confidence != "certain"


def test_an_ablation_with_a_constant_is_not_said_to_be_one_alone(tmp_path: Path) -> None:
    before = model()
    made = tools.orthogonalised(before, V)
    found = told(tmp_path, before, {**made, tools.EMBEDDING: made[tools.EMBEDDING] + OTHER})
    assert found.made_with == ("ablation", "constant")
    assert found.recipe is None


def turned(before: tools.Tensors) -> tools.Tensors:
    """A reflection of the stream from its first layer on; gains go into what reads behind them."""
    mirror = torch.eye(WIDTH, dtype=torch.float64) - 2 * torch.outer(V, V)
    made = tools.ablated(before, V, 2.0)
    for name, part in llama_parts(before).parts.items():
        if part.reads_behind is not None:
            made[name] = (before[name].double() * before[part.reads_behind] @ mirror).float()
            made[part.reads_behind] = torch.ones(WIDTH)
    return made


def test_a_reflection_at_a_layer_needs_gains_that_went_into_its_readers(tmp_path: Path) -> None:
    before = {**model(tied=False), "model.layers.0.other.weight": OTHER}
    found = told(tmp_path / "turned", before, turned(before))
    assert found.made_with == ("reflection at a layer",)
    assert found.confidence == "certain"
    other = {**tools.ablated(before, V, 2.0), "model.layers.0.other.weight": torch.ones(WIDTH)}
    plain = told(tmp_path / "plain", before, other)
    assert plain.made_with == ("reflection",)
    assert plain.confidence == "likely"


def test_tensors_that_do_not_fit_their_config_are_judged_without_an_anatomy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise UnsupportedError("the layout is another one")

    monkeypatch.setattr(model_parts, "names_on_disk", refuse)
    source = resolve("organism")
    found = model_parts.model_parts(source, Checkpoint.open(source.path))
    assert (found.problem, dict(found.parts)) == ("the layout is another one", {})
