"""Every edit: hooks agree with the weights that `bake` writes, and with the adapter, through the disk, on one family of
each kind.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.edit_kinds import EDITS, compare, compare_adapter, directions
from tests.helpers.families import save_family
from tests.helpers.family_models import load, logits
from weight_edit.adapters.adapter import adapter
from weight_edit.baking.bake import bake, steps_of
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.plan.step import EditStep

FAMILIES = ("llama", "gemma2", "gpt2", "mixtral", "phi", "gptj", "qwen3")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", EDITS)
def test_hooks_agree_with_weights(family: str, name: str, tmp_path: Path) -> None:
    save_family(family, tmp_path / "base")
    steps = steps_of(directions(), **{"kind": name, **EDITS[name]})
    difference, effect = compare(tmp_path / "base", tmp_path / "out", steps)
    assert effect > 0.05, "the edit must do something for the comparison to mean anything"
    assert difference < 1e-4


@pytest.mark.parametrize("family", ["llama", "gemma", "mixtral", "qwen3", "gpt2", "phi", "gptj"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_reflection_at_one_layer_is_exact(family: str, layer: int, tmp_path: Path) -> None:
    save_family(family, tmp_path / "base")
    steps = steps_of(directions(centred=True), "reflect", at=(layer,))
    difference, effect = compare(tmp_path / "base", tmp_path / "out", steps, "untie")
    assert effect > 0.05
    assert difference < 1e-4


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi"])
def test_an_addition_between_blocks_is_a_bias(family: str, tmp_path: Path) -> None:
    save_family(family, tmp_path / "base")
    steps = steps_of(directions(), "add", strength=-1.5, at=(1, 2))
    difference, effect = compare(tmp_path / "base", tmp_path / "out", steps)
    assert effect > 0.05
    assert difference < 1e-4


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_several_edits_in_one_pass(family: str, tmp_path: Path) -> None:
    save_family(family, tmp_path / "base")
    first, second, third = (directions(seed=seed, centred=True) for seed in (1, 2, 3))
    steps = [
        EditStep(directions=first, kind="affine", options={"enter": "embedding"}),
        EditStep(directions=second, kind="ablate", strength=0.7),
        EditStep(directions=first, kind="add", strength=0.5, at=(0,)),
        EditStep(directions=third, kind="reflect", at=(1,)),
    ]
    difference, effect = compare(tmp_path / "base", tmp_path / "out", steps, "untie")
    assert effect > 0.05
    assert difference < 1e-4


ADAPTABLE = ("llama", "gemma2", "gpt2", "phi", "gptj", "qwen3", "llama-tied")
UNTIED = ("ablate-part", "ablate-kernel", "ablate-by-layer", "reflect")
"""Of these, merging would make another edit of a tied unembedding; see tests/publish/test_merged_adapters.py."""


@pytest.mark.parametrize("family", ADAPTABLE)
@pytest.mark.parametrize("name", [name for name in EDITS if not name.startswith("norm-preserving")])
def test_hooks_agree_with_adapters(family: str, name: str, tmp_path: Path) -> None:
    save_family(family, tmp_path / "base")
    steps = steps_of(directions(), **{"kind": name, **EDITS[name]})
    difference, effect = compare_adapter(
        tmp_path / "base", tmp_path / "lora", steps, "untie" if name in UNTIED else "both"
    )
    assert effect > 0.05
    assert difference < 1e-4


@pytest.mark.parametrize("family", ["llama", "qwen3", "llama-tied"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_an_adapter_reflects_at_one_layer(family: str, layer: int, tmp_path: Path) -> None:
    """A tied unembedding is stored whole, and the embedding that it shares its weight with gets no adapter."""
    save_family(family, tmp_path / "base")
    steps = steps_of(directions(), "reflect", at=(layer,))
    difference, effect = compare_adapter(tmp_path / "base", tmp_path / "lora", steps, "untie")
    assert effect > 0.05
    assert difference < 1e-4


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi", "qwen3"])
def test_an_adapter_adds_between_blocks_whatever_the_config_can_create(family: str, tmp_path: Path) -> None:
    save_family(family, tmp_path / "base")
    steps = steps_of(directions(), "add", strength=-1.5, at=(1, 2))
    difference, effect = compare_adapter(tmp_path / "base", tmp_path / "lora", steps)
    assert effect > 0.05
    assert difference < 1e-4


@pytest.mark.parametrize("edit", ["affine", "erase"])
@pytest.mark.parametrize(("family", "embeddings"), [("gpt2", "both"), ("phi", "both"), ("llama", "skip")])
def test_an_adapter_has_constants_enter_where_they_were_found(
    family: str, embeddings: str, edit: str, tmp_path: Path
) -> None:
    save_family(family, tmp_path / "base")
    steps = steps_of(directions(), edit)
    difference, effect = compare_adapter(tmp_path / "base", tmp_path / "lora", steps, embeddings)
    assert effect > 0.05
    assert difference < 1e-4


@pytest.mark.parametrize(
    ("family", "embeddings", "at"), [("llama", "untie", 0), ("llama-tied", "untie", 0), ("qwen3", "skip", 1)]
)
def test_an_adapter_of_several_edits(family: str, embeddings: str, at: int, tmp_path: Path) -> None:
    save_family(family, tmp_path / "base")
    first, second, third = (directions(seed=seed) for seed in (1, 2, 3))
    steps = [
        *([EditStep(directions=first, kind="affine", options={"enter": "embedding"})] if at == 0 else []),
        EditStep(directions=second, kind="ablate", strength=0.7),
        EditStep(directions=first, kind="add", strength=0.5, at=(at,)),
        EditStep(directions=third, kind="reflect", at=(1,)),
    ]
    difference, effect = compare_adapter(tmp_path / "base", tmp_path / "lora", steps, embeddings)
    assert effect > 0.05
    assert difference < 1e-4


@pytest.mark.parametrize(
    ("family", "steps", "said"),
    [
        ("llama", {"kind": "norm-preserving"}, "norm-preserving.*not of low rank; `rank=R` makes .*; or use bake"),
        ("llama", {"kind": "rectify"}, "cannot be baked.*sign"),
        ("gpt2", {"kind": "reflect", "at": (1,)}, "reflection at a layer changes the norms.*use bake"),
        ("phi", {"kind": "reflect", "at": (1,)}, "reflection at a layer changes the norms.*use bake"),
        ("bloom", {"kind": "ablate"}, "layernorm.bias' changes too, which a LoRA cannot carry; use bake"),
        ("llama", {"kind": "affine"}, "has no bias.*`options: enter=embedding`"),
        ("mixtral", {"kind": "add", "at": (1,)}, "no linear map that could have a bias"),
        ("gemma2", {"kind": "add", "at": (1,)}, "norm.*between.*has no bias"),
        ("gemma2", {"kind": "reflect", "at": (1,)}, "norm.*stands between a writer"),
    ],
)
def test_what_no_adapter_can_do_is_refused_by_name(family: str, steps: Any, said: str, tmp_path: Path) -> None:
    save_family(family, tmp_path / "base")
    with pytest.raises(UnsupportedError, match=said):
        adapter(tmp_path / "base", steps_of(directions(centred=True), **steps), tmp_path / "lora", embeddings="untie")
    assert not (tmp_path / "lora").exists()


def test_an_embedding_and_a_new_bias_do_not_go_into_one_adapter(tmp_path: Path) -> None:
    save_family("qwen3", tmp_path / "base")
    steps = [
        EditStep(directions=directions(), kind="ablate"),
        EditStep(directions=directions(seed=2), kind="add", at=(1,)),
    ]
    with pytest.raises(UnsupportedError, match=r"'model.layers.0.mlp.down_proj' has no bias.*`embeddings='skip'`"):
        adapter(tmp_path / "base", steps, tmp_path / "lora")


def test_one_pass_is_one_bake_after_the_other(tmp_path: Path) -> None:
    save_family("llama", tmp_path / "base")
    first, second = directions(seed=1), directions(seed=2)
    bake(tmp_path / "base", [EditStep(directions=first), EditStep(directions=second, kind="affine")], tmp_path / "once")
    bake(tmp_path / "base", first, tmp_path / "one")
    bake(tmp_path / "one", second, tmp_path / "two", kind="affine")
    assert (logits(load(tmp_path / "once")) - logits(load(tmp_path / "two"))).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("edit", "options", "error", "said"),
    [
        ("rectify", {}, UnsupportedError, "cannot be baked.*sign.*nearest.*`kind='ablate'`"),
        ("ablate", {"at": (1,)}, UnsupportedError, "cannot be baked.*does not commute.*reflect"),
        ("affine", {"at": (1,)}, UnsupportedError, "cannot be baked.*nearest.*whole stream"),
        ("magic", {}, UsageError, "no edit 'magic'.*ablate.*reflect"),
        ("add", {"layers": {1}}, UsageError, "`at`"),
        ("affine", {"layers": {1}}, UsageError, "whole stream: leave `layers`"),
        ("reflect", {"at": (1,), "strength": 0.5}, UsageError, "strength 1"),
        ("reflect", {"at": (9,)}, UsageError, "layer 9 does not exist"),
        ("affine", {"options": {"towards": "x"}}, UsageError, "'towards'.*did you mean 'toward'"),
        (
            "ablate",
            {"kernel": {"mlp": [1.0] * 4}},
            UsageError,
            "`kernel` has numbers for 4 layers, but .*Llama.* has 3",
        ),
        ("ablate", {"kernel": {"attention": []}}, UsageError, "`kernel` has numbers for 0 layers"),
    ],
)
def test_what_cannot_be_baked_is_refused_by_name(tmp_path, edit, options, error, said) -> None:
    save_family("llama", tmp_path / "base")
    with pytest.raises(error, match=said):
        bake(tmp_path / "base", directions(), tmp_path / "out", kind=edit, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("family", "edit", "at", "said"),
    [
        ("gemma2", "add", (1,), "norm.*between.*has no bias"),
        ("gemma2", "reflect", (1,), "norm.*stands between a writer"),
        ("gpt2", "reflect", (1,), "LayerNorm.*sum to zero"),
        ("mixtral", "add", (1,), "no linear map that could have a bias"),
        ("qwen3", "add", (1,), "no setting that creates.*bias.*adapter"),
    ],
)
def test_families_that_cannot_are_refused_by_name(tmp_path, family, edit, at, said) -> None:
    save_family(family, tmp_path / "base")
    with pytest.raises(UnsupportedError, match=said):
        bake(tmp_path / "base", directions(), tmp_path / "out", kind=edit, at=at, embeddings="untie")


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi"])
@pytest.mark.parametrize("edit", ["affine", "erase"])
def test_a_constant_enters_at_the_layer_where_it_was_found(family: str, edit: str, tmp_path: Path) -> None:
    save_family(family, tmp_path / "base")
    difference, effect = compare(tmp_path / "base", tmp_path / "out", steps_of(directions(), edit))
    assert effect > 0.05
    assert difference < 1e-4
