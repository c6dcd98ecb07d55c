"""Small checkpoints with multi-token-prediction layers, named as published, and a run of such a layer by itself."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from weight_edit.anatomy.derive import anatomy_of
from weight_edit.anatomy.inputs.inputs import text_inputs
from weight_edit.anatomy.narrow.small import narrow_model
from weight_edit.inspection.catalogue.samples import sample

WIDTH = 64
VOCABULARY = 97
FILE = "model.safetensors"


@dataclass(frozen=True)
class Published:
    """How a family names its MTP layer.

    Attributes:
        block: what stands before the names of the block's tensors.
        like: number of the model's block that it is like.
        projection: the linear map that the layer's stream starts from.
        readers: norms.
        renamed: names within the block that differ from the model's.
        embedding, head: copies of the model's, where the checkpoint has them.
    """

    block: str
    like: int
    projection: str
    readers: tuple[str, ...]
    renamed: dict[str, str] | None = None
    embedding: str | None = None
    head: str | None = None


def numbered_on(after: int, like: int, **others: Any) -> Published:
    """As DeepSeek V3 has it: the block behind the last one."""
    block = f"model.layers.{after}."
    readers = tuple(block + name + ".weight" for name in ("enorm", "hnorm", "shared_head.norm"))
    return Published(block, like, block + "eh_proj.weight", readers, **others)


ERNIE = Published(
    "model.mtp_block.0.",
    2,
    "model.mtp_linear_proj.0.weight",
    ("model.mtp_emb_norm.0.weight", "model.mtp_hidden_norm.0.weight"),
)

PUBLISHED = {
    "deepseek_v3": numbered_on(
        4, 3, embedding="model.layers.4.embed_tokens.weight", head="model.layers.4.shared_head.head.weight"
    ),
    "glm4_moe": numbered_on(3, 2),
    "qwen3_next": Published(
        "mtp.layers.0.",
        3,
        "mtp.fc.weight",
        ("mtp.norm.weight", "mtp.pre_fc_norm_embedding.weight", "mtp.pre_fc_norm_hidden.weight"),
    ),
    "mimo_v2_flash": Published(
        "model.mtp.layers.0.",
        0,
        "model.mtp.layers.0.eh_proj.weight",
        tuple(f"model.mtp.layers.0.{name}.weight" for name in ("enorm", "hnorm", "final_layernorm")),
        {"post_attention_layernorm": "pre_mlp_layernorm"},
    ),
    "ernie4_5": ERNIE,
    "ernie4_5_moe": ERNIE,
    # Of Gemma 2 none is published: it shows what becomes of norms behind the writers.
    "gemma2": numbered_on(3, 2),
}


def save_with_mtp(family: str, folder: Path) -> Any:
    """A random model with an MTP layer beside it, saved; returns the model."""
    published = PUBLISHED[family]
    model = narrow_model(sample(family), seed=0)
    model.save_pretrained(folder)
    stored = load_file(folder / FILE)
    generator = torch.Generator().manual_seed(1)

    def anew(tensor: Tensor) -> Tensor:
        """Other numbers of the same size, so that the block is not the model's."""
        return tensor[:, torch.randperm(tensor.shape[1], generator=generator)] if tensor.ndim == 2 else tensor.flip(0)

    mtp = {
        published.block + _renamed(name.removeprefix(start), published.renamed or {}): anew(tensor)
        for start in [f"model.layers.{published.like}."]
        for name, tensor in stored.items()
        if name.startswith(start)
    }
    mtp[published.projection] = torch.randn(WIDTH, 2 * WIDTH, generator=generator) / WIDTH**0.5
    mtp |= {name: 1 + torch.rand(WIDTH, generator=generator) for name in published.readers}
    embedding = stored["model.embed_tokens.weight"]
    mtp |= {name: embedding.clone() for name in (published.embedding, published.head) if name}
    save_file(
        {name: tensor.contiguous() for name, tensor in {**stored, **mtp}.items()}, folder / FILE, {"format": "pt"}
    )
    return model


def mtp_names(folder: Path, family: str) -> set[str]:
    """All tensors of the MTP layer."""
    published = PUBLISHED[family]
    beside = {published.projection, *published.readers}
    return {name for name in load_file(folder / FILE) if name.startswith(published.block) or name in beside}


def mtp_stream(family: str, model: Any, folder: Path, rows: Tensor) -> dict[str, float]:
    """The share along `rows` of the MTP layer's stream at the block's input, middle and output.

    transformers runs the block, in the place of the model's block that it is like.
    """
    published = PUBLISHED[family]
    stored = load_file(folder / FILE)
    back = {new: old for old, new in (published.renamed or {}).items()}
    place = f"model.layers.{published.like}."
    moved = {
        place + _renamed(name.removeprefix(published.block), back): tensor
        for name, tensor in stored.items()
        if name.startswith(published.block) and not name.endswith(("eh_proj.weight", "enorm.weight", "hnorm.weight"))
    }
    swapped = folder.with_name(f"{folder.name}-swapped")
    swapped.mkdir()
    own = {name: tensor for name, tensor in stored.items() if name in moved or name not in mtp_names(folder, family)}
    save_file({**own, **{n: t for n, t in moved.items() if n in stored}}, swapped / FILE, {"format": "pt"})
    (swapped / "config.json").write_bytes((folder / "config.json").read_bytes())
    drafting = type(model).from_pretrained(swapped, dtype=torch.float32, attn_implementation="eager").eval()
    block = anatomy_of(model.config).blocks[published.like]
    assert block.mid is not None
    generator = torch.Generator().manual_seed(2)
    inputs = text_inputs(drafting, 7, 3)
    entering = torch.randn(*inputs["input_ids"].shape, 2 * WIDTH, generator=generator) @ stored[published.projection].T
    seen: dict[str, Tensor] = {}

    def enter(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        seen["input"] = entering
        if args:
            return (entering, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": entering}

    handles = [
        drafting.get_submodule(block.module).register_forward_pre_hook(enter, with_kwargs=True),
        drafting.get_submodule(block.mid).register_forward_pre_hook(_note(seen, "middle")),
        drafting.get_submodule(block.module).register_forward_hook(
            lambda _, __, out: seen.update(output=out[0] if isinstance(out, tuple) else out)
        ),
    ]
    with torch.no_grad():
        drafting(**inputs)
    for handle in handles:
        handle.remove()
    return {at: float(((x @ rows.T).norm(dim=-1) / x.norm(dim=-1)).max()) for at, x in seen.items()}


def _note(seen: dict[str, Tensor], place: str) -> Callable[..., None]:
    def note(_: Any, args: tuple[Tensor, ...]) -> None:
        seen[place] = args[0]

    return note


def _renamed(within: str, names: dict[str, str]) -> str:
    first, dot, rest = within.partition(".")
    return names.get(first, first) + dot + rest


def drafting_stream(family: str, model: Any, folder: Path, rows: Tensor) -> dict[str, float]:
    """The same as `mtp_stream` in transformers' own drafting model, loaded from the checkpoint and fed by its model."""
    from transformers.modeling_layers import MtpModel

    loaded = type(model).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    # transformers knows these names for layers of the published depth only.
    loaded._keys_to_ignore_on_load_unexpected = [PUBLISHED[family].block.replace(".", r"\.")]
    loaded.config.num_mtp_layers = 1
    drafting = MtpModel.from_pretrained(loaded).eval()
    layer = drafting.layers[0]
    seen: dict[str, Tensor] = {}
    layer.eh_proj.register_forward_hook(lambda _, __, out: seen.update(input=out))
    layer.mtp_block.post_attention_layernorm.register_forward_pre_hook(_note(seen, "middle"))
    layer.post_norm.register_forward_pre_hook(_note(seen, "output"))
    ids = text_inputs(loaded, 7, 3)["input_ids"][:1]
    with torch.no_grad():
        last = loaded.model(ids).last_hidden_state
        positions = torch.arange(ids.shape[1])[None]
        drafting.forward_layer(0, last, positions, None, input_ids=ids)
    return {at: float(((x @ rows.T).norm(dim=-1) / x.norm(dim=-1)).max()) for at, x in seen.items()}
