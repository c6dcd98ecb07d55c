"""The scores against a literal re-computation of arXiv 2406.11717: hooks of torch alone, prompt by prompt."""

import math

import pytest
import torch
from torch import nn

from weight_edit.directions.find import ablation_hooks
from weight_edit.directions.mean_difference import candidates as mean_differences
from weight_edit.directions.scores import kl_divergence, score_candidates
from weight_edit.prompts import ChatFormat

# Where each family keeps the parts that the paper hooks.
PARTS = {"llama": ("self_attn", "mlp"), "gpt2": ("attn", "mlp")}


def literal_logprobs(model: nn.Module, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)


def literal_metric(logprobs, tokens):
    p = logprobs.exp()[tokens].sum()
    return float(torch.log(p) - torch.log(1 - p))


def remove(r):
    def project(x):
        return x - (x @ r)[..., None] * r

    def on_input(module, args, kwargs):
        if args:
            return (project(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": project(kwargs["hidden_states"])}

    def on_output(module, args, output):
        return (project(output[0]), *output[1:]) if isinstance(output, tuple) else project(output)

    return on_input, on_output


def ablated(model, family, r):
    """Attach the paper's hooks: every block's input, every attention's and MLP's output, all tokens."""
    on_input, on_output = remove(r)
    handles = []
    blocks = model.model.layers if family == "llama" else model.transformer.h
    for block in blocks:
        handles.append(block.register_forward_pre_hook(on_input, with_kwargs=True))
        handles += [getattr(block, part).register_forward_hook(on_output) for part in PARTS[family]]
    return handles


def added(model, family, layer, vector):
    def on_input(module, args, kwargs):
        if args:
            return (args[0] + vector, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] + vector}

    blocks = model.model.layers if family == "llama" else model.transformer.h
    return [blocks[layer].register_forward_pre_hook(on_input, with_kwargs=True)]


def under(handles, model, prompts):
    try:
        return [literal_logprobs(model, ids) for ids in prompts]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_scores_equal_the_papers_computed_literally(behaviour, family):
    found = behaviour(family)
    model, tokens = found.model, found.tokens
    format = ChatFormat(model.tokenizer)
    target, held_target = ([format.encode(p) for p in s.prompts] for s in found.target.split((20, 6)))
    baseline, held_baseline = ([format.encode(p) for p in s.prompts] for s in found.baseline.split((20, 6)))
    positions = list(range(-len(format.suffix), 0))
    differences = mean_differences(model, target, baseline, positions, batch_size=8)
    scores = score_candidates(
        model,
        differences,
        positions,
        held_target,
        held_baseline,
        tokens,
        lambda direction: ablation_hooks(model, direction),
        batch_size=4,
    )
    assert [(s.position, s.layer) for s in scores] == [(p, layer) for p in positions for layer in range(4)]

    net = model.model
    base = [literal_logprobs(net, ids) for ids in held_baseline]
    compared = 0
    for score in scores:
        r = differences[positions.index(score.position), score.layer]
        if family == "llama" and score.layer == 0:
            # A template's token before any block is the same for all prompts.
            assert score.norm == 0
            assert math.isnan(score.bypass)
            assert math.isnan(score.induce)
            assert math.isnan(score.kl)
            continue
        unit = r / r.norm()
        bypass = [literal_metric(v, tokens) for v in under(ablated(net, family, unit), net, held_target)]
        pushed = under(added(net, family, score.layer, r), net, held_baseline)
        after = under(ablated(net, family, unit), net, held_baseline)
        kl = [float((b.exp() * (b - a)).sum()) for b, a in zip(base, after, strict=True)]
        induce = [literal_metric(v, tokens) for v in pushed]
        expected = (sum(bypass) / 6, sum(induce) / 6, sum(kl) / 6, float(r.norm()))
        assert (score.bypass, score.induce, score.kl, score.norm) == pytest.approx(expected, abs=1e-4)
        compared += 1
    assert compared == (6 if family == "llama" else 8)
    assert max(score.kl for score in scores if score.norm) > 1e-3


def test_kl_divergence_against_hand_computed_values():
    base = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]]).log()
    other = torch.tensor([[0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]).log()
    assert kl_divergence(base, other).tolist() == pytest.approx([0.5 * math.log(2), 0.0])
    assert kl_divergence(other, base)[0] == math.inf
