"""What a stack may have dropped: transformers' model without it, which the stack then agrees with."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from weight_edit.runtime.loading import load

DEFAULT_ROPE_BASE = 10000.0


def reference(folder: Path) -> Any:
    """A checkpoint by transformers in float32; of a GGUF file, which is dequantised for it, as the package loads it."""
    if folder.suffix == ".gguf":
        return load(folder, dtype="float32", device="cpu").model.eval()
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def _without_rope_base(config: Any) -> bool:
    ropes = config.rope_parameters
    parts = [ropes] if "rope_theta" in ropes else [each for each in ropes.values() if isinstance(each, dict)]
    for each in parts:
        each["rope_theta"] = DEFAULT_ROPE_BASE
    return bool(parts)


def _rope_bases_by_default(config: Any) -> bool:
    """Of a model with two: both are what older configs of this family have."""
    there = _without_rope_base_of_windows(config)
    if there:
        config.rope_parameters["full_attention"]["rope_theta"] = 1e6
    return there


def _without_rope_base_of_windows(config: Any) -> bool:
    local = config.rope_parameters.get("sliding_attention")
    if isinstance(local, dict):
        local["rope_theta"] = DEFAULT_ROPE_BASE
    return isinstance(local, dict)


def _every_sixth(config: Any) -> bool:
    before = list(getattr(config, "layer_types", None) or ())
    after = ["sliding_attention" if (number + 1) % 6 else "full_attention" for number in range(len(before))]
    there = "sliding_attention" in before and after != before
    if there:
        config.layer_types = after
    return there


def _without(*names: str) -> Callable[[Any], bool]:
    def change(config: Any) -> bool:
        there = [name for name in names if getattr(config, name, None) is not None]
        for name in there:
            setattr(config, name, None)
        return bool(there)

    return change


def _without_window(config: Any) -> bool:
    there = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    if there:
        config.sliding_window = config.max_position_embeddings
    return there


def _zero(*endings: str) -> Callable[[Any], bool]:
    """Without the parameters of these names; false unless each ending has one that is not zero already."""

    def change(model: Any) -> bool:
        found = {end: [p for name, p in model.named_parameters() if name.endswith(end) and p.any()] for end in endings}
        for each in chain.from_iterable(found.values()):
            each.data.zero_()
        return all(found.values())

    return change


def _tie(model: Any) -> bool:
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    is_own = not torch.equal(head.weight, embedding.weight)
    head.weight = embedding.weight
    return is_own


def _round_embedding_scale(model: Any) -> bool:
    scale = getattr(model.get_input_embeddings(), "embed_scale", None)
    if not isinstance(scale, torch.Tensor):
        return False
    before = scale.clone()
    scale.copy_(scale.bfloat16())
    return not torch.equal(scale, before)


def _no_window_in_prompt(model: Any) -> bool:
    """Without a window where a prompt is read at once, all but its last token; the window is there behind it."""
    there = "sliding_attention" in (getattr(model.config, "layer_types", None) or ())

    def masks(prompt: int, length: int) -> dict[str, torch.Tensor]:
        back = torch.arange(length)[:, None] - torch.arange(length)
        seen = back >= 0
        near = seen & ((back < model.config.sliding_window) | (torch.arange(length)[:, None] < prompt - 1))
        both = {"full_attention": seen, "sliding_attention": near}
        return {name: torch.zeros(1, 1, length, length).masked_fill(~each, -torch.inf) for name, each in both.items()}

    if there:
        model.masks = masks
    return there


CONFIGS: Mapping[str, Callable[[Any], bool]] = {
    "`rope_parameters` (takes 10000)": _without_rope_base,
    "`rope_parameters` (takes 10000 and 1000000)": _rope_bases_by_default,
    "`rope_parameters` of windows (takes 10000)": _without_rope_base_of_windows,
    "`layer_types` (takes every sixth as full)": _every_sixth,
    "soft-capping of logits": _without("final_logit_softcapping"),
    "soft-capping of attention": _without("attn_logit_softcapping"),
    "all soft-capping": _without("final_logit_softcapping", "attn_logit_softcapping"),
    "the sliding window": _without_window,
}
"""What is dropped -> how a config says so; false where the model has nothing of it."""

MODELS: Mapping[str, Callable[[Any], bool]] = {
    "biases of `down_proj`": _zero("down_proj.bias"),
    "biases of `o_proj` and `down_proj`": _zero("o_proj.bias", "down_proj.bias"),
    "biases of attention": _zero("q_proj.bias", "k_proj.bias", "v_proj.bias"),
    "the unembedding of its own (takes the embedding)": _tie,
    "the sliding window within a prompt": _no_window_in_prompt,
    "the embedding's scale (takes it in bfloat16)": _round_embedding_scale,
}
"""What is dropped -> how a loaded model shows it."""


MOST = 3
"""How many things are dropped at a time, at most."""


def explanations(folder: Path, agrees: Callable[[Any], bool], *, most: int = MOST) -> list[str]:
    """What a stack may have dropped: every way to drop as few things as need be, under which transformers agrees.

    Several agree where they do the same to this model; which of them it was, replies cannot tell.

    Args:
        agrees: whether the stack's replies are a model's.
        most: how many things are dropped at a time.
    """
    there = [name for name in (*CONFIGS, *MODELS) if _without_things(folder, [name]) is not None]
    for count in range(1, most + 1):
        found = []
        for names in combinations(there, count):
            model = _without_things(folder, names)
            if model is not None and agrees(model):
                found.append(" and ".join(names))
        if found:
            return found
    return []


def _without_things(folder: Path, names: Sequence[str]) -> Any | None:
    """Transformers' model without these; None where one of them changes nothing any more."""
    config = AutoConfig.from_pretrained(folder)
    if not all(CONFIGS[name](config) for name in names if name in CONFIGS):
        return None
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32).eval()
    with torch.no_grad():
        return model if all(MODELS[name](model) for name in names if name in MODELS) else None
