"""Which tensors beside a model are those of multi-token-prediction layers, and which of them write."""

from dataclasses import replace

import pytest

from weight_edit.anatomy.disk.layout import Layout, Piece, runs_of
from weight_edit.anatomy.disk.mtp import MtpWriter, mtp_tensors, mtp_writers
from weight_edit.anatomy.disk.names import DiskNames
from weight_edit.anatomy.parts import Anatomy, Block, Norm, Writer
from weight_edit.errors import UnsupportedError

D = 8
OUT = "self_attn.o_proj.weight"
POST = Norm(module="", kind="rms", gain_offset=1.0, weight="post_norm.weight", bias=None)


def block_of(place: str, layer: int, writers: dict[str, tuple[int, Norm | None]]) -> Block:
    """A block whose writers are given as name within it -> axis and norm."""
    found = []
    for name, (axis, norm) in writers.items():
        own = norm and replace(norm, weight=norm.weight and place + norm.weight, bias=norm.bias and place + norm.bias)
        found.append(
            Writer(
                module=place,
                weight=place + name,
                axis=axis,
                bias=None,
                bias_axis=0,
                role="mlp",
                layer=layer,
                norm=own,
                scale=1.0,
            )
        )
    return Block(place.removesuffix("."), layer, tuple(found), (), None)


def model(
    extra: dict[str, tuple[int, ...]],
    writers: dict[str, tuple[int, Norm | None]] | list[dict[str, tuple[int, Norm | None]]],
    readers: tuple[str, ...] = (),
    head: str = "model.layers.",
) -> tuple[Anatomy, DiskNames, dict[str, tuple[int, ...]]]:
    """Two blocks with the names that are given, and extra tensors beside them."""
    kinds = writers if isinstance(writers, list) else [writers, writers]
    blocks = tuple(block_of(f"{head}{layer}.", layer, kinds[layer]) for layer in range(2))
    names = [f"{head}{layer}.{name}" for layer in range(2) for name in (*kinds[layer], *readers)]
    layout = Layout(
        parameters={name: runs_of([Piece(name, (0, 1, 2))]) for name in names},
        how={},
        missing={},
        mismatched={},
        clashes=(),
        extra=tuple(extra),
    )
    anatomy = Anatomy(
        architecture="Some",
        model_type="some",
        d_model=D,
        embeddings=(),
        blocks=blocks,
        final_norm=None,
        unembedding="lm_head",
        embedding_weight="embed.weight",
        unembedding_weight="lm_head.weight",
        tied=False,
        also_tied=(),
        shapes={},
        media=(),
        unknown=(),
    )
    return anatomy, DiskNames(layout), extra


def test_blocks_that_are_numbered_on_are_told_by_their_projection() -> None:
    extra = {
        "model.layers.1.rotary.inv_freq": (4,),
        "model.layers.2.eh_proj.weight": (D, 2 * D),
        "model.layers.2.input_layernorm.weight": (D,),
        # What config.json leaves out of a longer model, and towers with numbers of their own.
        "model.layers.3.input_layernorm.weight": (D,),
        "vision.layers.7.eh_proj.weight": (D, 2 * D),
    }
    anatomy, disk, _ = model(extra, {OUT: (0, None)})
    assert mtp_tensors(anatomy, disk) == ("model.layers.2.eh_proj.weight", "model.layers.2.input_layernorm.weight")


@pytest.mark.parametrize(
    ("name", "axis"),
    [
        ("mtp.fc.weight", 0),
        ("language_model.mtp.fc.weight", 0),
        ("mtp.layers.0.self_attn.o_proj.weight", 0),
        ("mtp.layers.0.mixer.experts.511.down_proj.weight", 0),
        ("mtp.layers.0.eh_proj.weight", 0),
        ("model.mtp_layers.0.input_proj.weight", 0),
        ("model.mtp_layers.0.self_attn.o_proj.weight", 0),
        ("model.mtp.embed_tokens.weight", 1),
        ("model.mtp_block.0.self_attn.o_proj.weight", 0),
        ("model.mtp_linear_proj.0.weight", 0),
        ("mtp.0.e_proj.weight", 0),
        ("mtp.0.h_proj.weight", 0),
        ("mtp.0.attn.wo_b.weight", 0),
        ("model.mtp.layers.0.transformer_block.self_attn.o_proj.weight", 0),
        ("model.layers.2.transformer.self_attn.o_proj.weight", 0),
        ("model.layers.2.embed_tokens.weight", 1),
        # Packed as one tensor where the model has one for each expert, and the other way round.
        ("mtp.layers.0.mlp.experts.down_proj", 1),
        ("mtp.layers.0.moe.experts.3.down_proj.weight", 0),
    ],
)
def test_writers_by_their_published_names(name: str, axis: int) -> None:
    real = {
        OUT: (0, None),
        "mixer.experts.0.down_proj.weight": (0, None),
        "mlp.experts.0.down_proj.weight": (0, None),
        "attn.wo_b.weight": (0, None),
        "moe.experts.down_proj": (1, None),
    }
    extra = {name: (D, D, D), "model.layers.2.eh_proj.weight": (D, 2 * D)}
    found = mtp_writers(*model(extra, real))
    assert {writer.tensor: writer.axis for writer in found} == {name: axis, "model.layers.2.eh_proj.weight": 0}


@pytest.mark.parametrize(
    "name",
    [
        "mtp.norm.weight",
        "mtp.pre_fc_norm_embedding.weight",
        "model.mtp_emb_norm.0.weight",
        "model.mtp_layers.0.token_layernorm.weight",
        "model.mtp.layers.0.enorm.m.weight",
        "model.mtp.layers.0.pre_mlp_layernorm.weight",
        "model.layers.2.shared_head.head.weight",
        "model.layers.2.transformer.shared_head.output.weight",
        "mtp.0.hc_head_fn",
        "mtp.layers.0.mlp.gate_proj.weight",
        "mtp.layers.0.mlp.experts.7.gate_proj.weight",
        "mtp.layers.0.mlp.experts.gate_up_proj",
        "mtp.layers.0.eh_proj.input_scale",
    ],
)
def test_readers_norms_and_heads_stay(name: str) -> None:
    readers = ("mlp.gate_proj.weight", "mlp.experts.0.gate_proj.weight", "post_attention_layernorm.weight")
    extra = {name: (D, D), "model.layers.2.eh_proj.weight": (D, 2 * D)}
    anatomy, disk, shapes = model(extra, {OUT: (0, None)}, readers)
    assert set(mtp_tensors(anatomy, disk)) == set(extra)
    assert [writer.tensor for writer in mtp_writers(anatomy, disk, shapes)] == ["model.layers.2.eh_proj.weight"]


def test_a_block_of_longcat_is_one_half_of_those_of_the_model() -> None:
    real = {"self_attn.0.o_proj.weight": (0, None), "mlps.0.down_proj.weight": (0, None)}
    names = ("model.mtp.layers.0.self_attn.o_proj.weight", "model.mtp.layers.0.transformer_layer.mlp.down_proj.weight")
    readers = ("input_layernorm.0.weight", "mlps.0.up_proj.weight")
    more = ("model.mtp.layers.0.input_layernorm.weight", "model.mtp.layers.0.transformer_layer.mlp.up_proj.weight")
    found = mtp_writers(*model(dict.fromkeys((*names, *more), (D, D)), real, readers))
    assert tuple(writer.tensor for writer in found) == names


def test_a_norm_behind_a_writer_is_the_layers_own() -> None:
    extra = {"mtp.layers.0.self_attn.o_proj.weight": (D, 4), "mtp.layers.0.post_norm.weight": (D,)}
    found = mtp_writers(*model(extra, {OUT: (0, POST)}, ("post_norm.weight",)))
    norm = replace(POST, weight="mtp.layers.0.post_norm.weight")
    assert found == (MtpWriter("mtp.layers.0.self_attn.o_proj.weight", 0, "block", norm),)


def test_the_bias_of_a_norm_behind_a_writer_writes() -> None:
    norm = Norm(module="", kind="layer", gain_offset=0.0, weight="post_norm.weight", bias="post_norm.bias")
    place = "mtp.layers.0."
    extra = {place + OUT: (D, 4), place + "post_norm.weight": (D,), place + "post_norm.bias": (D,)}
    found = mtp_writers(*model(extra, {OUT: (0, norm)}, ("post_norm.weight", "post_norm.bias")))
    assert [(writer.tensor, writer.kind) for writer in found] == [
        (place + OUT, "block"),
        (place + "post_norm.bias", "norm bias"),
    ]


def test_a_name_that_writes_in_one_block_and_another_way_in_the_next_is_refused() -> None:
    extra = {"mtp.layers.0.self_attn.o_proj.weight": (D, 4), "mtp.layers.0.post_norm.weight": (D,)}
    kinds = [{OUT: (0, None)}, {OUT: (0, POST)}]
    with pytest.raises(UnsupportedError, match=r"o_proj\.weight' .* is used otherwise from block to block"):
        mtp_writers(*model(extra, kinds, ("post_norm.weight",)))


def test_tensors_that_nothing_explains_are_named_but_belong_to_the_layer() -> None:
    anatomy, disk, shapes = model({"mtp.layers.0.unheard_of.weight": (D, D)}, {OUT: (0, None)})
    assert mtp_tensors(anatomy, disk) == ("mtp.layers.0.unheard_of.weight",)
    with pytest.raises(UnsupportedError, match=r"'mtp\.layers\.0\.unheard_of\.weight' .* has no equal"):
        mtp_writers(anatomy, disk, shapes)


def test_a_model_without_such_layers_has_none() -> None:
    anatomy, disk, shapes = model({"h.0.attn.masked_bias": (1,), "smtp.layers.0.weight": (D,)}, {OUT: (0, None)})
    assert mtp_tensors(anatomy, disk) == ()
    assert mtp_writers(anatomy, disk, shapes) == ()
