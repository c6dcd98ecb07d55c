"""The scores of arXiv 2406.11717 written down literally: hooks of torch alone, full logits, prompt by prompt."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Where each family keeps its blocks, and in them the parts whose outputs the paper hooks.
PARTS = {"llama": ("model.layers", "self_attn", "mlp"), "gpt2": ("transformer.h", "attn", "mlp")}


def literal_scores(
    model: nn.Module,
    r: Tensor,
    layer: int,
    target: Sequence[list[int]],
    baseline: Sequence[list[int]],
    tokens: list[int],
) -> tuple[float, float, float]:
    """Bypass, induce and KL of the unnormalised direction r (d_model,), found at the input of `layer`."""
    unit = r / r.norm()
    base = [_logprobs(model, ids) for ids in baseline]
    bypass = [_metric(values, tokens) for values in _under(_ablate(model, unit), model, target)]
    induce = [_metric(values, tokens) for values in _under(_add(model, layer, r), model, baseline)]
    after = _under(_ablate(model, unit), model, baseline)
    kl = [float((b.exp() * (b - a)).sum()) for b, a in zip(base, after, strict=True)]
    return sum(bypass) / len(bypass), sum(induce) / len(induce), sum(kl) / len(kl)


def _logprobs(model: nn.Module, ids: list[int]) -> Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)


def _metric(logprobs: Tensor, tokens: list[int]) -> float:
    p = logprobs.exp()[tokens].sum()
    rest = logprobs.exp()[[token for token in range(len(logprobs)) if token not in tokens]].sum()
    return float(torch.log(p) - torch.log(rest))


def _under(handles, model, prompts):
    try:
        return [_logprobs(model, ids) for ids in prompts]
    finally:
        for handle in handles:
            handle.remove()


def _on_input(change):
    def hook(module, args, kwargs):
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    return hook


def _on_output(change):
    def hook(module, args, output):
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    return hook


def _ablate(model, unit):
    """Every block's input, every attention's and every MLP's output, all tokens."""

    def project(x):
        return x - (x @ unit)[..., None] * unit

    path, *parts = PARTS[model.config.model_type]
    handles = []
    for block in model.get_submodule(path):
        handles.append(block.register_forward_pre_hook(_on_input(project), with_kwargs=True))
        handles += [getattr(block, part).register_forward_hook(_on_output(project)) for part in parts]
    return handles


def _add(model, layer, vector):
    block = model.get_submodule(PARTS[model.config.model_type][0])[layer]
    return [block.register_forward_pre_hook(_on_input(lambda x: x + vector), with_kwargs=True)]
