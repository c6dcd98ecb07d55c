"""Changes of a model's weights that are no edit of directions, and that look like one.

Each takes the tensors of a model that are called as in Llama, and gives new ones. Formulas are from the papers named.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tests.helpers.other_tools import EMBEDDING, WRITERS, Tensors, each_matrix, layers_of, on_writers, unit, width_of

_READERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
    "pre_feedforward_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}


def rows_replaced(tensors: Tensors, count: int, how: str = "mean", untied: bool = False) -> Tensors:
    """Some rows of the embedding set anew, as those of special tokens are.

    Args:
        how: "mean" (of all rows, with a little noise), "copy" (of another row), "zero" or "noise".
        untied: whether the unembedding's are, too, where there is one.
    """
    made = dict(tensors)
    for name in (EMBEDDING, "lm_head.weight") if untied else (EMBEDDING,):
        if name in tensors:
            made[name] = _with_rows(tensors[name], count, how)
    return made


def _with_rows(tensor: Tensor, count: int, how: str) -> Tensor:
    e = tensor.float().clone()
    generator = torch.Generator().manual_seed(4)
    at = torch.randperm(len(e), generator=generator)[:count]
    noise = torch.randn(count, e.shape[1], generator=generator) * e.std()
    mean = e.mean(0)
    new = {"mean": mean + 0.1 * noise, "copy": e[(at + 17) % len(e)], "zero": torch.zeros_like(noise), "noise": noise}
    e[at] = new[how]
    return e.to(tensor.dtype)


def tokens_added(tensors: Tensors, count: int = 8) -> Tensors:
    """New rows behind those of the embedding and of the unembedding, near their mean."""
    made = dict(tensors)
    for name in (EMBEDDING, "lm_head.weight"):
        if name in tensors:
            e = tensors[name].float()
            noise = torch.randn(count, e.shape[1], generator=torch.Generator().manual_seed(5))
            made[name] = torch.cat([e, e.mean(0) + 0.01 * e.std() * noise]).to(tensors[name].dtype)
    return made


def gains_folded(tensors: Tensors, offset: float = 0.0) -> Tensors:
    """The norms' gains multiplied into the matrices that read behind them; `offset` is 1 in Gemma."""
    made = dict(tensors)
    four = any("pre_feedforward" in name for name in tensors)
    for name, gains in tensors.items():
        norm = name.split(".")[-2]
        if ".layers." not in name or norm not in _READERS or (four and norm == "post_attention_layernorm"):
            continue
        block = name[: name.index(norm)]
        for reader in _READERS[norm]:
            key = f"{block}{reader}.weight"
            made[key] = (tensors[key].float() * (gains.float() + offset)).to(tensors[key].dtype)
        made[name] = torch.full_like(gains, 1.0 - offset)
    return made


def centred(tensors: Tensors) -> Tensors:
    """The mean over the stream taken off what is written: nothing to a model whose norms take it off."""
    made = on_writers(tensors, lambda w, layer, name: w - w.mean(0, keepdim=True))
    e = tensors[EMBEDDING].double()
    return {**made, EMBEDDING: (e - e.mean(1, keepdim=True)).to(tensors[EMBEDDING].dtype)}


def with_layer_norms(tensors: Tensors) -> Tensors:
    """The model with norms that take the mean off (StableLM): biases of zero beside the gains."""
    norms = {name: t for name, t in tensors.items() if "norm" in name}
    return {**tensors, **{name.replace(".weight", ".bias"): torch.zeros_like(t) for name, t in norms.items()}}


def heads_pruned(tensors: Tensors, head: int, share: float = 0.25) -> Tensors:
    """Whole heads of attention, and as many neurons of the MLPs, set to zero on the side that is read."""
    generator = torch.Generator().manual_seed(6)

    def edit(w: Tensor, layer: int, name: str) -> Tensor:
        group = head if "self_attn" in name else 1
        kept = torch.rand(w.shape[1] // group, generator=generator) >= share
        return w * kept.repeat_interleave(group)

    return on_writers(tensors, edit)


def two_of_four(w: Tensor) -> Tensor:
    """The two smaller of every four numbers set to zero (2:4 sparsity)."""
    fours = w.reshape(-1, 4)
    least = fours.abs().topk(2, dim=1, largest=False).indices
    return fours.scatter(1, least, 0.0).reshape(w.shape)


def decomposed(w: Tensor, kept: float | int) -> Tensor:
    """The leading singular values alone (arXiv 2312.13558): a share of them, or all but so many."""
    left, values, right = torch.linalg.svd(w.double(), full_matrices=False)
    count = int(len(values) * kept) if isinstance(kept, float) else len(values) - kept
    return (left[:, :count] * values[:count] @ right[:count]).to(w.dtype)


def biases_tuned(tensors: Tensors, blocks: Sequence[int]) -> Tensors:
    """New biases of the outputs of attention and MLP, as training only biases makes them (arXiv 2106.10199)."""
    new = {}
    for layer in blocks:
        for number, writer in enumerate(WRITERS):
            name = f"model.layers.{layer}.{writer}".replace(".weight", ".bias")
            new[name] = (0.05 * unit(width_of(tensors), 100 + 2 * layer + number)).to(tensors[EMBEDDING].dtype)
    return {**tensors, **new}


def _both(one: Mapping[str, Tensor], other: Mapping[str, Tensor], tensors: Tensors) -> list[str]:
    return [name for name in tensors if tensors[name].ndim == 2 and not torch.equal(one[name], other[name])]


def averaged(one: Tensors, other: Tensors, share: float = 0.5) -> Tensors:
    """`(1 - share) one + share other`, in the dtype of the first."""
    return {name: ((1 - share) * t.float() + share * other[name].float()).to(t.dtype) for name, t in one.items()}


def slerped(one: Tensors, other: Tensors, share: float = 0.5) -> Tensors:
    """Spherical interpolation of whole tensors."""
    made = dict(one)
    for name in _both(one, other, one):
        a, b = one[name].double(), other[name].double()
        angle = torch.arccos(((a / a.norm()) * (b / b.norm())).sum().clamp(-1, 1))
        if angle > 1e-6:
            parts = torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b
            made[name] = (parts / torch.sin(angle)).to(one[name].dtype)
    return made


def ties_merged(base: Tensors, tuned: Sequence[Tensors], kept: float = 0.2) -> Tensors:
    """TIES (arXiv 2306.01708): of each difference the largest, then one sign for each number, then the mean."""
    made = dict(base)
    for name, t in base.items():
        if t.ndim == 2:
            changes = [_trimmed(each[name].float() - t.float(), kept) for each in tuned]
            sign = torch.sign(sum(changes, torch.zeros_like(changes[0])))
            agreeing = [torch.where(torch.sign(c) == sign, c, torch.zeros_like(c)) for c in changes]
            count = sum((c != 0).float() for c in agreeing)
            assert isinstance(count, Tensor)
            made[name] = (t.float() + sum(agreeing) / count.clamp_min(1)).to(t.dtype)
    return made


def _trimmed(change: Tensor, kept: float) -> Tensor:
    sizes = change.abs().flatten()
    least = sizes.kthvalue(max(1, int(len(sizes) * (1 - kept)))).values
    return torch.where(change.abs() > least, change, torch.zeros_like(change))


def frozen_above(base: Tensors, tuned: Tensors, blocks: int) -> Tensors:
    """A fine-tune of the last blocks alone: the first ones are the base's."""
    first = layers_of(base) - blocks
    names = [n for n in base if ".layers." in n and int(n.split(".layers.")[1].split(".")[0]) >= first]
    return {**base, **{name: tuned[name] for name in names}}


def reparametrised(tensors: Tensors) -> Tensors:
    """Each neuron's scale moved between the two sides of the MLP, which computes the same."""
    made = dict(tensors)
    for name, t in tensors.items():
        if name.endswith("mlp.down_proj.weight"):
            factors = torch.randn(t.shape[1], generator=torch.Generator().manual_seed(7)).mul(0.3).exp()
            up = name.replace("down_proj", "up_proj")
            made[name] = (t.float() * factors).to(t.dtype)
            made[up] = (tensors[up].float() / factors[:, None]).to(t.dtype)
    return made


def rounded(tensors: Tensors, dtype: torch.dtype) -> Tensors:
    """Through another format and back."""
    return each_matrix(tensors, lambda w: w.to(dtype).to(w.dtype))
