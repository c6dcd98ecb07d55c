"""What is refused of a checkpoint's tensors, and where an edit goes on disk."""

from typing import Any

import pytest
from transformers import AutoConfig

from tests.helpers.families import family_config
from weight_edit.anatomy.derive import anatomy_of
from weight_edit.anatomy.disk.conversion import resolve
from weight_edit.anatomy.disk.layout import Piece
from weight_edit.anatomy.disk.names import DiskNames, check_nothing_left_out, names_on_disk
from weight_edit.anatomy.disk.stored import Stored
from weight_edit.anatomy.narrow.small import build, narrow_config
from weight_edit.anatomy.parts import Anatomy
from weight_edit.errors import UnsupportedError, UsageError

Shapes = dict[str, tuple[int, ...]]
EXPERT = "model.layers.0.mlp.experts.{}.{}_proj.weight"


def found_on(config: Any, anatomy: Anatomy, shapes: Shapes) -> DiskNames:
    return names_on_disk(anatomy, resolve(build(config, device="meta"), Stored(shapes)))


def per_expert(config: Any) -> Shapes:
    """The shapes of a Qwen MoE as it is published: a tensor for each expert."""
    shapes = {name: tuple(value.shape) for name, value in build(config, device="meta").state_dict().items()}
    count, width, inner = shapes.pop("model.layers.0.mlp.experts.down_proj")
    del shapes["model.layers.0.mlp.experts.gate_up_proj"]
    for expert in range(count):
        shapes[EXPERT.format(expert, "down")] = (width, inner)
        shapes |= {EXPERT.format(expert, kind): (inner, width) for kind in ("gate", "up")}
    return shapes


@pytest.fixture(scope="module")
def moe_anatomy(moe: Any) -> Anatomy:
    return anatomy_of(moe)


@pytest.fixture(scope="module")
def moe() -> Any:
    return narrow_config(AutoConfig.for_model("qwen3_moe", num_hidden_layers=1, tie_word_embeddings=False))


def disk_of(config: Any, shapes: Shapes) -> DiskNames:
    return DiskNames(resolve(build(config, device="meta"), Stored(shapes)))


def test_names_with_and_without_the_prefix_of_the_backbone() -> None:
    config = family_config("gpt2")
    anatomy = anatomy_of(config)
    tensors = {name: shape for name, shape in anatomy.shapes.items() if name != "lm_head.weight"}
    assert found_on(config, anatomy, tensors).extra == ()
    stripped = {name.removeprefix("transformer."): shape for name, shape in tensors.items()}
    found = found_on(config, anatomy, {**stripped, "h.0.attn.masked_bias": (1,)})
    assert found.only("transformer.wte.weight") == "wte.weight"
    assert found.extra == ("h.0.attn.masked_bias",)
    assert "lm_head.weight" not in found
    assert found.pieces("lm_head.weight") == ()


def test_a_missing_tensor_or_a_wrong_shape_is_named() -> None:
    config = family_config("llama")
    anatomy = anatomy_of(config)
    without = {name: shape for name, shape in anatomy.shapes.items() if "layers.1.mlp.down_proj" not in name}
    with pytest.raises(UnsupportedError, match=r"model\.layers\.1\.mlp\.down_proj\.weight"):
        found_on(config, anatomy, without)
    with pytest.raises(UsageError, match=r"model\.norm\.weight.*\(65,\).*\(64,\)"):
        found_on(config, anatomy, {**anatomy.shapes, "model.norm.weight": (65,)})


def test_a_checkpoint_with_both_spellings_is_refused() -> None:
    config = family_config("gpt2")
    anatomy = anatomy_of(config)
    both = {**anatomy.shapes, "wte.weight": anatomy.shapes["transformer.wte.weight"]}
    with pytest.raises(UnsupportedError, match=r"both 'transformer\.wte\.weight' and 'wte\.weight'"):
        found_on(config, anatomy, both)


def test_each_expert_is_edited_along_its_own_axis(moe: Any) -> None:
    disk = disk_of(moe, per_expert(moe))
    down = "model.layers.0.mlp.experts.down_proj"
    assert disk.pieces(down)[2] == Piece(EXPERT.format(2, "down"), (None, 0, 1))
    assert disk.edits_on_disk(down, 1) == [(EXPERT.format(e, "down"), 0) for e in range(4)]
    assert disk.edits_on_disk(down, -1) == [(EXPERT.format(e, "down"), 1) for e in range(4)]
    with pytest.raises(UnsupportedError, match=r"3 more tensors.*MergeModulelist.*axis 0"):
        disk.edits_on_disk(down, 0)
    with pytest.raises(UnsupportedError, match=r"'model\.layers\.0\.mlp\.experts\.down_proj' lies in"):
        disk.only(down)
    # Gate and up lie one after the other along axis 1 of the parameter, and read along axis 2.
    assert len(disk.edits_on_disk("model.layers.0.mlp.experts.gate_up_proj", 2)) == 8
    with pytest.raises(UnsupportedError, match="Concatenate"):
        disk.edits_on_disk("model.layers.0.mlp.experts.gate_up_proj", 1)


@pytest.mark.parametrize("expert", [0, 2, 3])
def test_a_missing_expert_is_refused(moe: Any, moe_anatomy: Anatomy, expert: int) -> None:
    shapes = per_expert(moe)
    del shapes[EXPERT.format(expert, "down")]
    layout = resolve(build(moe, device="meta"), Stored(shapes))
    assert layout.mismatched == {"model.layers.0.mlp.experts.down_proj": (3, 64, 24)}
    with pytest.raises(UnsupportedError, match=r"experts\.down_proj.*2 tensors like it make \(3, 64, 24\)"):
        names_on_disk(moe_anatomy, layout)


def test_experts_of_different_shapes_are_refused(moe: Any, moe_anatomy: Anatomy) -> None:
    shapes = per_expert(moe)
    shapes[EXPERT.format(1, "down")] = (24, 64)
    layout = resolve(build(moe, device="meta"), Stored(shapes))
    with pytest.raises(UnsupportedError, match=r"no tensor 'model\.layers\.0\.mlp\.experts\.down_proj'.*equal size"):
        names_on_disk(moe_anatomy, layout)


def test_a_checkpoint_with_both_layouts_is_refused(moe: Any, moe_anatomy: Anatomy) -> None:
    shapes = per_expert(moe)
    layout = resolve(build(moe, device="meta"), Stored({**shapes, "model.layers.0.mlp.experts.down_proj": (4, 64, 24)}))
    with pytest.raises(UnsupportedError, match=r"both 'model\.layers\.0\.mlp\.experts"):
        names_on_disk(moe_anatomy, layout)


def test_a_tensor_that_holds_several_parameters_is_not_edited_for_one() -> None:
    """Editing a fused projection along an axis that its parts share would edit the others too."""
    config = narrow_config(AutoConfig.for_model("hrm_text", num_hidden_layers=1))
    shapes = {name: tuple(value.shape) for name, value in build(config, device="meta").state_dict().items()}
    gate, up = (next(name for name in shapes if name.endswith(f"mlp.{kind}_proj.weight")) for kind in ("gate", "up"))
    fused = gate.replace("gate_proj", "gate_up_proj")
    rows, width = shapes.pop(gate)
    del shapes[up]
    disk = disk_of(config, {**shapes, fused: (2 * rows, width)})
    assert disk.pieces(gate) == disk.pieces(up) == (Piece(fused, (None, 1)),)
    for axis in (0, 1):
        with pytest.raises(UnsupportedError, match=rf"lies in '{fused}' on disk \(read with Chunk\).*axis {axis}"):
            disk.edits_on_disk(gate, axis)


def test_a_tensor_named_like_a_writer_that_no_parameter_is_made_of_is_refused() -> None:
    config = family_config("llama")
    anatomy = anatomy_of(config)
    more = {"model.layers.3.self_attn.o_proj.weight": (64, 96), "model.layers.0.self_attn.rotary_emb.inv_freq": (12,)}
    disk = found_on(config, anatomy, {**anatomy.shapes, **more})
    with pytest.raises(UnsupportedError, match=r"'model\.layers\.3\.self_attn\.o_proj\.weight'"):
        check_nothing_left_out(anatomy, disk, (), {})
    check_nothing_left_out(anatomy, disk, {"model.layers.3.self_attn.o_proj.weight"}, {})
