"""The cases of the confusion table of `diff --verdict`: how each is made, and what a right verdict says of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import load_file

from tests.helpers import innocent_changes as innocent
from tests.helpers import kept_apart
from tests.helpers import other_tools as tools

Made = Callable[[], tools.Tensors]
FINE_TUNE = ("fine-tune or merge",)
LOW_RANK = ("low-rank update", "fine-tune or merge")
ABLATION = ("ablation",)
PARTIAL = ("partial ablation", "ablation with strengths by layer")
UNNAMED = ("fine-tune or merge", "low-rank update", "undecided")
"""What may be said of a change that the verdict has no name for."""
COMPRESSED = ("low-rank compression", *UNNAMED)
ROWS_KEPT = ("norm-preserving ablation (rows)", "ablation of unit rows")
STABLE = {"model_type": "stablelm", "architectures": ["StableLmForCausalLM"], "use_qkv_bias": False}
MIXTURE = {
    "model_type": "mixtral",
    "architectures": ["MixtralForCausalLM"],
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One change of a model.

    Attributes:
        made: the changed model.
        right: how a name begins that says what it is.
        base: what it is changed from, where that is not the model.
        config: more of the model's config.
    """

    made: Made
    right: tuple[str, ...]
    base: Made | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Given:
    """What cases are made of.

    Attributes:
        base: the model's tensors.
        tuned: a fine-tune's tensors in float32, by the name in `verdict_models.TRAININGS`; None where it is not kept.
        gain_offset: what the norms add to their gains.
        head: numbers of a head of attention.
    """

    base: tools.Tensors
    tuned: Callable[[str], tools.Tensors | None]
    gain_offset: float
    head: int

    @property
    def v(self) -> torch.Tensor:
        """The direction that is edited."""
        return tools.unit(tools.width_of(self.base), 1)

    @property
    def by_layer(self) -> torch.Tensor:
        """A direction for each layer, alike."""
        d, n = tools.width_of(self.base), tools.layers_of(self.base)
        each = torch.stack([self.v + 0.5 * tools.unit(d, 10 + layer) for layer in range(n)])
        return each / each.norm(dim=1, keepdim=True)

    def stored(self, tensors: tools.Tensors) -> tools.Tensors:
        """The tensors in the formats of the model's own."""
        return {name: t.to(self.base[name].dtype) if name in self.base else t for name, t in tensors.items()}


def edits(g: Given) -> dict[str, Case]:
    """What other tools do to a model; these are also tried on models in fewer bits."""
    t, v, each = g.base, g.v, g.by_layer
    d, n = tools.width_of(t), tools.layers_of(t)
    right = v + 0.7 * tools.unit(d, 5)
    right = right / (right @ v)
    many = torch.linalg.qr(torch.randn(d, 24, generator=torch.Generator().manual_seed(3), dtype=torch.float64))[0].T
    coordinate = torch.zeros(d, dtype=torch.float64)
    coordinate[d // 3] = 1.0
    found = {
        "orthogonalised, embedding too": Case(made=lambda: tools.orthogonalised(t, v), right=ABLATION),
        "ablation of writers": Case(made=lambda: tools.ablated(t, v), right=ABLATION),
        "ablation of one layer alone": Case(made=lambda: tools.ablated(t, v, 1.0, range(n - 1, n)), right=ABLATION),
        "ablation, 60%": Case(made=lambda: tools.ablated(t, v, 0.6), right=PARTIAL),
        "ablation, 15%": Case(made=lambda: tools.ablated(t, v, 0.15), right=PARTIAL),
        "reflection": Case(made=lambda: tools.ablated(t, v, 2.0), right=("reflection",)),
        "kernel of strengths": Case(
            made=lambda: tools.heretic(t, v), right=("ablation with strengths", "partial", "ablation beyond")
        ),
        "kernel, a direction each layer": Case(
            made=lambda: tools.heretic(t, each), right=("ablation with strengths", "partial", "ablation beyond")
        ),
        "kernel, rows of unit length": Case(made=lambda: tools.heretic(t, v, "pre"), right=ROWS_KEPT),
        "kernel, row norms in 3 ranks": Case(made=lambda: tools.heretic(t, v, "full"), right=ROWS_KEPT),
        "row norms kept": Case(made=lambda: tools.rows_kept(t, v), right=ROWS_KEPT),
        "vector norms kept": Case(
            made=lambda: tools.columns_kept(t, each), right=("norm-preserving ablation (vectors)",)
        ),
        "oblique eraser": Case(made=lambda: tools.erased(t, v, right), right=("oblique",)),
        "nullspace of 24": Case(made=lambda: tools.ablated(t, many), right=ABLATION),
        "one coordinate": Case(made=lambda: tools.ablated(t, coordinate), right=ABLATION),
        "affine (a constant in the embedding)": Case(made=lambda: tools.affine(t, v, 0.1), right=("ablation",)),
        "addition as a bias": Case(made=lambda: tools.added_as_bias(t, v, n // 2), right=("addition",)),
        "addition to the embedding": Case(made=lambda: tools.added_to_embedding(t, 0.1 * v), right=("addition",)),
        "experts of a mixture": Case(
            made=lambda: tools.ablated(tools.as_mixture(t), v, ends=("o_proj.weight", ".w2.weight")),
            right=ABLATION,
            base=lambda: tools.as_mixture(t),
            config=MIXTURE,
        ),
    }
    if t["model.layers.0.self_attn.o_proj.weight"].shape[0] == t["model.layers.0.self_attn.o_proj.weight"].shape[1]:
        found["wrong side of square writers"] = Case(made=lambda: tools.read_side(t, v), right=ABLATION)
    if any("pre_feedforward" in name for name in t):
        found["through the norms behind writers"] = Case(
            made=lambda: tools.ablated_through_norms(t, v, g.gain_offset), right=ABLATION
        )
    return found


def innocents(g: Given) -> dict[str, Case]:
    """Changes that are no edit."""
    t = g.base
    found = {
        f"{count} rows of the embedding, {how}": Case(
            made=lambda count=count, how=how, untied=untied: innocent.rows_replaced(t, count, how, untied),
            right=("some vectors replaced", *UNNAMED, *(("pruning",) if how == "zero" else ())),
        )
        for count, how, untied in (
            *((1, "mean", True), (1, "copy", False), (1, "zero", False), (4, "mean", True), (4, "zero", False)),
            *((40, "mean", True), (40, "noise", False)),
        )
    }
    found |= {
        "8 tokens added": Case(made=lambda: innocent.tokens_added(t), right=("another vocabulary",)),
        "new biases of writers, all blocks": Case(
            made=lambda: innocent.biases_tuned(t, range(tools.layers_of(t))), right=UNNAMED
        ),
        "gains folded into readers": Case(
            made=lambda: innocent.gains_folded(t, g.gain_offset), right=("gains folded", "rounding", *UNNAMED)
        ),
        "neurons rescaled": Case(made=lambda: innocent.reparametrised(t), right=(*UNNAMED, "scaling")),
        "noise": Case(made=lambda: tools.noisy(t), right=FINE_TUNE),
        "noise, another seed": Case(
            made=lambda: tools.noisy(t, seed=2), base=lambda: tools.noisy(t, seed=3), right=FINE_TUNE
        ),
        "LoRA of random factors": Case(made=lambda: tools.low_rank(t, 16), right=LOW_RANK),
        "LoRA of random factors, rank 1": Case(made=lambda: tools.low_rank(t, 1), right=LOW_RANK),
        "SVD, 3/4 kept": Case(made=lambda: _each(t, lambda w: innocent.decomposed(w, 0.75)), right=COMPRESSED),
        "SVD, all but 8": Case(made=lambda: _each(t, lambda w: innocent.decomposed(w, 8)), right=COMPRESSED),
        "pruned, half": Case(made=lambda: _each(t, tools.pruned), right=("pruning",)),
        "pruned, 2 of 4": Case(made=lambda: _each(t, innocent.two_of_four), right=("pruning",)),
        "heads and neurons pruned": Case(made=lambda: innocent.heads_pruned(t, g.head), right=("pruning",)),
        "decayed by 2%": Case(made=lambda: _each(t, lambda w: w * 0.98), right=("scaling",)),
        "int8": Case(made=lambda: _each(t, tools.int8_rows), right=("quantisation",)),
        "NF4": Case(made=lambda: _each(t, tools.nf4_blocks), right=("quantisation",)),
        "FP8": Case(made=lambda: _each(t, tools.fp8_tensor), right=("quantisation",)),
        "4 bits, affine": Case(made=lambda: _each(t, tools.int4_affine), right=("quantisation",)),
        "stored as float16": Case(made=lambda: {k: x.half() for k, x in t.items()}, right=("rounding", "no change")),
        "stored as float32": Case(made=lambda: {k: x.float() for k, x in t.items()}, right=("rounding", "no change")),
        "the same": Case(made=lambda: dict(t), right=("no change",)),
    }
    if "model.layers.0.self_attn.q_norm.weight" not in t and "model.layers.0.self_attn.q_proj.bias" not in t:
        found["writers centred before a LayerNorm"] = Case(
            made=lambda: innocent.with_layer_norms(innocent.centred(t)),
            base=lambda: innocent.with_layer_norms(t),
            config=STABLE,
            right=(*UNNAMED, "centring"),
        )
    return found | _trained(g)


def _trained(g: Given) -> dict[str, Case]:
    t, found = g.base, {}
    names = {
        "refusal": "fine-tune on refusals",
        "text": "fine-tune on text",
        "answer": "fine-tune on answers to harmful prompts",
        "preference": "preferences (refusal over answer)",
        "refusal-sgd": "fine-tune on refusals, SGD",
        "lora-refusal": "LoRA on refusals, merged",
        "lora-text": "LoRA on text, merged",
        "gains": "norms and biases tuned alone",
    }
    known = {kind: made for kind in names if (made := g.tuned(kind)) is not None}
    for kind, tuned in known.items():
        right = {"lora": LOW_RANK, "gains": ("undecided",)}.get(kind.split("-")[0], FINE_TUNE)
        found[names[kind]] = Case(made=lambda tuned=tuned: g.stored(tuned), right=right)
    exact = {name: x.float() for name, x in t.items()}
    if "refusal" in known:
        one = known["refusal"]
        found["fine-tune on refusals, float32"] = Case(made=lambda: one, base=lambda: exact, right=FINE_TUNE)
        found["fine-tune of the last two blocks"] = Case(
            made=lambda: innocent.frozen_above(t, g.stored(one), 2), right=FINE_TUNE
        )
        found["fine-tune, half way back"] = Case(made=lambda: innocent.averaged(t, one), right=FINE_TUNE)
        found["fine-tune, then 4 bits"] = Case(
            made=lambda: _each(g.stored(one), tools.int4_affine), right=("quantisation", *FINE_TUNE)
        )
    if "refusal" in known and "text" in known:
        a, b = g.stored(known["refusal"]), g.stored(known["text"])
        found["merge, linear"] = Case(made=lambda: innocent.averaged(a, b), right=FINE_TUNE)
        found["merge, SLERP"] = Case(made=lambda: innocent.slerped(a, b), right=FINE_TUNE)
        found["merge, TIES"] = Case(made=lambda: innocent.ties_merged(t, [a, b]), right=FINE_TUNE)
    return found


def both(g: Given) -> dict[str, Case]:
    """Edits beside something else."""
    t, v, each = g.base, g.v, g.by_layer
    found = {
        "ablation, then int8": Case(made=lambda: _each(tools.ablated(t, v), tools.int8_rows), right=ABLATION),
        "ablation, then NF4": Case(made=lambda: _each(tools.ablated(t, v), tools.nf4_blocks), right=ABLATION),
        "kernel, then 4 bits": Case(
            made=lambda: _each(tools.heretic(t, each), tools.int4_affine), right=("ablation", "partial")
        ),
        "ablation, then noise": Case(made=lambda: tools.noisy(tools.ablated(t, v)), right=ABLATION),
        "ablation, then LoRA": Case(made=lambda: tools.low_rank(tools.ablated(t, v), 16), right=ABLATION),
        "ablation, then 8 tokens": Case(made=lambda: innocent.tokens_added(tools.orthogonalised(t, v)), right=ABLATION),
        "ablation, half way back": Case(made=lambda: innocent.averaged(t, tools.ablated(t, v)), right=PARTIAL),
        "ablation, then pruned": Case(made=lambda: _each(tools.ablated(t, v), tools.pruned), right=ABLATION),
    }
    for kind in ("refusal", "lora-refusal", "gains"):
        tuned = g.tuned(kind)
        if tuned is not None:
            what = {"refusal": "fine-tune", "lora-refusal": "trained LoRA", "gains": "tuned norms"}[kind]
            after = {name: x.float() for name, x in tools.ablated(t, v).items()}
            moved = {name: after[name] + tuned[name] - t[name].float() for name in t}
            found[f"{what}, then ablation"] = Case(
                made=lambda tuned=tuned: tools.ablated(g.stored(tuned), v), right=ABLATION
            )
            found[f"ablation, then {what}"] = Case(made=lambda moved=moved: g.stored(moved), right=ABLATION)
    return found


def apart(g: Given) -> dict[str, Case]:
    """Formulas that were not looked at before the thresholds were fixed; their names say what they are."""
    t, v = g.base, g.v
    u = tools.unit(tools.width_of(t), 6)
    found = {
        "edit: ablation of writers": Case(made=lambda: tools.ablated(t, v), right=ABLATION),
        "edit: turned by 60 degrees": Case(made=lambda: kept_apart.rotated(t, v, u), right=("oblique", "ablation")),
        "edit: ablation of half of the heads": Case(
            made=lambda: kept_apart.heads_ablated(t, v, g.head), right=ABLATION
        ),
        "edit: ablation for some inputs": Case(
            made=lambda: kept_apart.conditioned(t, v), right=("low-rank update", "ablation", "partial ablation")
        ),
        "innocent: inputs scaled (AWQ)": Case(
            made=lambda: kept_apart.inputs_scaled(t, offset=g.gain_offset), right=(*UNNAMED, "scaling")
        ),
    }
    tuned = g.tuned("refusal")
    if tuned is not None:
        found["innocent: fine-tune on refusals"] = Case(made=lambda: g.stored(tuned), right=FINE_TUNE)
        found["innocent: merge, DARE"] = Case(made=lambda: kept_apart.dare(t, tuned), right=FINE_TUNE)
    return found


def _each(tensors: tools.Tensors, change: Callable[[torch.Tensor], torch.Tensor]) -> tools.Tensors:
    return tools.each_matrix(tensors, change)


def kept_tuned(folder: str, blocks: int, rows: int, end: str = "") -> Callable[[str], tools.Tensors | None]:
    """The fine-tunes that `verdict_models.py` left in a folder."""

    def tuned(kind: str) -> tools.Tensors | None:
        try:
            found = load_file(f"{folder}/{kind}{end}.safetensors")
        except FileNotFoundError:
            return None
        return {
            name: x[:rows].clone() if "embed" in name or "lm_head" in name else x
            for name, x in found.items()
            if ".layers." not in name or tools.layer_of(name) < blocks
        }

    return tuned
