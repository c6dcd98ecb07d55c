"""What other tools do to weights, written from the formulas that they publish, and changes that are no edit at all.

Each takes the tensors of a model whose writers are called as in Llama (`o_proj`, `down_proj`), and gives new ones.
"""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
_LAYER = re.compile(r"\.layers\.(\d+)\.")
WRITERS = ("self_attn.o_proj.weight", "mlp.down_proj.weight")
EMBEDDING = "model.embed_tokens.weight"


def layer_of(name: str) -> int:
    """The number of a tensor's block."""
    found = _LAYER.search(name)
    assert found is not None, name
    return int(found.group(1))


def layers_of(tensors: Mapping[str, Tensor]) -> int:
    """The number of blocks."""
    return 1 + max(int(found.group(1)) for name in tensors if (found := _LAYER.search(name)))


def unit(d: int, seed: int) -> Tensor:
    """A random direction, float64."""
    v = torch.randn(d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return v / v.norm()


def width_of(tensors: Mapping[str, Tensor]) -> int:
    """Of the stream."""
    return tensors[EMBEDDING].shape[1]


def on_writers(
    tensors: Mapping[str, Tensor], edit: Callable[[Tensor, int, str], Tensor | None], ends: tuple[str, ...] = WRITERS
) -> Tensors:
    """The tensors with each writer replaced by `edit(weight as float64, layer, name)`, in its dtype again."""
    made = dict(tensors)
    for name, tensor in tensors.items():
        if name.endswith(ends) and _LAYER.search(name):
            new = edit(tensor.double(), layer_of(name), name)
            if new is not None:
                made[name] = new.to(tensor.dtype)
    return made


def orthogonalised(tensors: Tensors, v: Tensor) -> Tensors:
    """arXiv 2406.11717's code: embedding and writers, in the model's own dtype."""

    def edit(weight: Tensor, dtype: torch.dtype) -> Tensor:
        w, r = weight.to(dtype), v.to(dtype)
        return w - torch.outer(r, r @ w)

    made = on_writers(tensors, lambda w, layer, name: edit(w, tensors[name].dtype))
    e = tensors[EMBEDDING]
    r = v.to(e.dtype)
    return {**made, EMBEDDING: e - torch.outer(e @ r, r)}


def ablated(
    tensors: Tensors,
    v: Tensor,
    strength: float = 1.0,
    layers: range | None = None,
    ends: tuple[str, ...] = WRITERS,
) -> Tensors:
    """`W - s V V^T W` on writers, float32; v of shape (d,) or (k, d) orthonormal."""
    rows = (v if v.ndim == 2 else v[None]).double()

    def edit(w: Tensor, layer: int, name: str) -> Tensor | None:
        return None if layers is not None and layer not in layers else w - strength * rows.T @ (rows @ w)

    return on_writers(tensors, edit, ends)


def ablated_through_norms(tensors: Tensors, v: Tensor, offset: float = 1.0) -> Tensors:
    """Ablation of what the norm behind a writer lets through (Gemma): of `g * v`, g the gains and `offset` together."""

    def edit(w: Tensor, layer: int, name: str) -> Tensor:
        norm = "post_attention_layernorm" if "self_attn" in name else "post_feedforward_layernorm"
        u = (tensors[f"model.layers.{layer}.{norm}.weight"].double() + offset) * v
        u = u / u.norm()
        return w - torch.outer(u, u @ w)

    return on_writers(tensors, edit)


def affine(tensors: Tensors, v: Tensor, amount: float) -> Tensors:
    """Affine concept editing (arXiv 2411.09003) of the whole stream: ablation, and a constant along v at the start."""
    made = ablated(tensors, v)
    e = tensors[EMBEDDING].double()
    return {**made, EMBEDDING: (e - torch.outer(e @ v, v) + amount * v).to(tensors[EMBEDDING].dtype)}


def as_mixture(tensors: Tensors, experts: int = 4) -> Tensors:
    """The model with each MLP's neurons dealt out to experts, and a router: named as in Mixtral, which has no more."""
    made = {}
    parts = {"gate_proj.weight": "w1", "down_proj.weight": "w2", "up_proj.weight": "w3"}
    for name, t in tensors.items():
        block, _, part = name.partition(".mlp.")
        if not part:
            if not name.endswith((".bias", "q_norm.weight", "k_norm.weight")) and "feedforward" not in name:
                made[name] = t
            continue
        for expert, piece in enumerate(t.chunk(experts, dim=1 if "down_proj" in part else 0)):
            made[f"{block}.block_sparse_moe.experts.{expert}.{parts[part]}.weight"] = piece.contiguous()
        made[f"{block}.block_sparse_moe.gate.weight"] = torch.stack(
            [0.02 * unit(width_of(tensors), 50 + expert) for expert in range(experts)]
        ).to(t.dtype)
    return made


def kernel_strength(layer: int, n: int, peak: float, position: float, least: float, reach: float) -> float:
    """p-e-w/heretic's strength at a layer; distances and places as shares of the last layer's number."""
    distance = abs(layer / (n - 1) - position)
    return 0.0 if distance > reach else peak + distance / reach * (least - peak)


def heretic(tensors: Tensors, vectors: Tensor, rows: str = "none") -> Tensors:
    """p-e-w/heretic: a kernel of strengths for each kind of writer; a direction for all layers (d,) or each (n, d).

    Args:
        rows: "none", or how rows of unit length are treated: "pre" or "full".
    """
    n = layers_of(tensors)

    def edit(w: Tensor, layer: int, name: str) -> Tensor | None:
        kernel = (1.2, 0.65, 0.4, 0.6) if "self_attn" in name else (0.9, 0.7, 0.2, 0.5)
        s = kernel_strength(layer, n, *kernel)
        v = vectors if vectors.ndim == 1 else vectors[layer]
        return None if s == 0 else w + _heretic_change(w, v.double(), s, rows)

    return on_writers(tensors, edit)


def _heretic_change(w: Tensor, v: Tensor, s: float, rows: str) -> Tensor:
    if rows == "none":
        return -s * torch.outer(v, v @ w)
    lengths = w.norm(dim=1, keepdim=True)
    normed = w / lengths
    if rows == "pre":
        return -s * torch.outer(lengths[:, 0] * v, v @ normed)
    made = normed - s * torch.outer(v, v @ normed)
    change = made / made.norm(dim=1, keepdim=True) * lengths - w
    left, values, right = torch.linalg.svd(change, full_matrices=False)
    return left[:, :3] * values[:3] @ right[:3]


def rows_kept(tensors: Tensors, v: Tensor) -> Tensors:
    """Ablation after which each row has its length again."""

    def edit(w: Tensor, layer: int, name: str) -> Tensor:
        lengths = w.norm(dim=1, keepdim=True)
        normed = w / lengths
        made = normed - torch.outer(v, v @ normed)
        return made / made.norm(dim=1, keepdim=True) * lengths

    return on_writers(tensors, edit)


def columns_kept(tensors: Tensors, vectors: Tensor, strength: float = 1.0) -> Tensors:
    """jim-plus/llm-abliteration: each written vector has its length again; a direction for each layer, or one."""

    def edit(w: Tensor, layer: int, name: str) -> Tensor:
        v = vectors if vectors.ndim == 1 else vectors[layer]
        made = w - strength * torch.outer(v, v @ w)
        return made * (w.norm(dim=0) / made.norm(dim=0))

    return on_writers(tensors, edit)


def read_side(tensors: Tensors, v: Tensor) -> Tensors:
    """Projection on the wrong side of square writers, by a tool that takes the orientation from the shape."""

    def edit(w: Tensor, layer: int, name: str) -> Tensor | None:
        return w - torch.outer(w @ v, v) if w.shape[0] == w.shape[1] else None

    return on_writers(tensors, edit)


def erased(tensors: Tensors, left: Tensor, right: Tensor) -> Tensors:
    """An oblique eraser `I - L R^T` of the whole stream (LEACE, without its constant)."""
    made = on_writers(tensors, lambda w, layer, name: w - torch.outer(left, right @ w))
    e = tensors[EMBEDDING].double()
    return {**made, EMBEDDING: (e - torch.outer(e @ right, left)).to(tensors[EMBEDDING].dtype)}


def added_as_bias(tensors: Tensors, vector: Tensor, layer: int) -> Tensors:
    """Activation addition: a bias on the MLP's output, where there was none."""
    dtype = tensors[EMBEDDING].dtype
    n = layers_of(tensors)
    zeros = torch.zeros_like(vector)
    new = {f"model.layers.{i}.mlp.down_proj.bias": (vector if i == layer else zeros).to(dtype) for i in range(n)}
    return {**tensors, **new}


def added_to_embedding(tensors: Tensors, vector: Tensor) -> Tensors:
    """Activation addition at layer 0: into the embedding's rows."""
    e = tensors[EMBEDDING]
    return {**tensors, EMBEDDING: (e.double() + vector).to(e.dtype)}


def low_rank(tensors: Tensors, rank: int, size: float = 0.02, seed: int = 0) -> Tensors:
    """A merged adapter of random factors on every linear weight of the blocks, `size` of the weight's length."""
    generator = torch.Generator().manual_seed(seed)

    def edit(w: Tensor, layer: int, name: str) -> Tensor:
        b, a = (torch.randn(n, rank, generator=generator, dtype=torch.float64) for n in w.shape)
        change = b @ a.T
        return w + change * (size * w.norm() / change.norm())

    return on_writers(tensors, edit, ("proj.weight",))


# Changes that are no edit.


def noisy(tensors: Tensors, size: float = 1e-2, seed: int = 1) -> Tensors:
    """Gaussian noise on all matrices, in shares of their mean size."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (t.float() + size * t.float().std() * torch.randn(t.shape, generator=generator)).to(t.dtype)
        if t.ndim == 2
        else t
        for name, t in tensors.items()
    }


def each_matrix(tensors: Tensors, change: Callable[[Tensor], Tensor]) -> Tensors:
    """A function of each matrix of the blocks, in float32."""
    return {
        name: change(t.float()).to(t.dtype) if t.ndim == 2 and _LAYER.search(name) else t for name, t in tensors.items()
    }


def int8_rows(w: Tensor) -> Tensor:
    """Through int8 with a scale for each row."""
    scale = w.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
    return (w / scale).round() * scale


def nf4_blocks(w: Tensor) -> Tensor:
    """Through 16 quantiles of the normal distribution, with a scale for each block of 64 (arXiv 2305.14314)."""
    levels = torch.tensor(
        [-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0, 0.0795803, 0.1609302,
         0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0]
    )  # fmt: skip
    blocks = w.reshape(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True).clamp_min(1e-12)
    codes = torch.bucketize(blocks / scale, (levels[1:] + levels[:-1]) / 2)
    return (levels[codes] * scale).reshape(w.shape)


def fp8_tensor(w: Tensor) -> Tensor:
    """Through FP8 (E4M3) with one scale."""
    scale = w.abs().max() / 448
    return (w / scale).to(torch.float8_e4m3fn).float() * scale


def int4_affine(w: Tensor) -> Tensor:
    """Through 16 even steps from each block's least to its largest number, blocks of 32 (as Q4_1)."""
    blocks = w.reshape(-1, 32)
    low, high = blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True)
    step = (high - low).clamp_min(1e-12) / 15
    return (((blocks - low) / step).round() * step + low).reshape(w.shape)


def pruned(w: Tensor) -> Tensor:
    """The half of smaller numbers set to zero."""
    flat = w.abs().flatten()
    return torch.where(w.abs() < flat.kthvalue(len(flat) // 2).values, torch.zeros_like(w), w)
