"""How much of a direction is left when an edit ignores what stands between a writer and the stream: a Markdown table.

Random models of the families, narrow, in memory. Each writer of the blocks is edited as the tools do that know of no
norm (`W <- (I - v v^T) W`), of no biases, or of no axis, and as this one does; the share of what the writers add to the
stream, and of the stream behind the last block, that lies along the direction is compared with that before the edit.

    python benchmarks/post_norm.py
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weight_edit.anatomy.derive import anatomy_of
from weight_edit.anatomy.inputs.passes import text_run
from weight_edit.anatomy.narrow.small import build, narrow_model, narrowed, randomise
from weight_edit.anatomy.parts import Anatomy, Norm, Writer
from weight_edit.inspection.catalogue.samples import sample
from weight_edit.plan.plan import plan_ablation
from weight_edit.proofs.architecture import edit_in_memory
from weight_edit.runtime.hooks import Hook, hooked

POST_NORM = {"gemma2": "Gemma 2", "gemma3_text": "Gemma 3", "olmo2": "OLMo 2", "glm4": "GLM-4", "exaone4": "EXAONE 4"}
BIASED = {"gpt2": "GPT-2", "phi": "Phi"}
SPREADS = (0.3, 1.0)
SEEDS = 5


@dataclass(frozen=True)
class Left:
    """What an edit leaves, as a share of what was there before it.

    Attributes:
        added: of what the writers of the blocks add to the stream.
        stream: of the stream behind the last block.
    """

    added: float
    stream: float


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        family, ignored: which model, and what the other edit ignores.
        theory: what it should leave in what the writers add; None where that depends on the model.
        naive, ours: what is left.
    """

    family: str
    ignored: str
    theory: float | None
    naive: Left
    ours: Left


def post_norm(model_type: str, spread: float, seeds: int = SEEDS) -> Row:
    """A family with norms behind its writers, edited as if there were none.

    Args:
        model_type: one of `POST_NORM`.
        spread: standard deviation of the norms' gains around 1.
        seeds: models and directions to take the mean of.
    """
    config = sample(model_type)
    anatomy = anatomy_of(config)
    results = []
    for seed in range(seeds):
        model: Any = narrow_model(config, seed=seed)
        v = _direction(model, anatomy, seed)
        generator = torch.Generator().manual_seed(100 + seed)
        for norm in {w.norm: None for w in _writers(anatomy) if w.norm is not None}:
            gain = 1 + spread * torch.randn(len(v), generator=generator)
            with torch.no_grad():
                model.get_parameter(_weight(norm)).copy_(gain - norm.gain_offset)
        theory = _theory([_gain(model, w.norm) for w in _writers(anatomy) if w.norm is not None], v)
        broken = _blocks_with(anatomy, lambda w: replace(w, norm=None))
        results.append((theory, *_left(model, anatomy, v, seed, broken)))
    theory, naive, ours = zip(*results, strict=True)
    ignored = f"norm, gains 1 ± {spread}"
    return Row(POST_NORM[model_type], ignored, float(np.mean(theory)), _mean(naive), _mean(ours))


def biases(model_type: str, seeds: int = SEEDS) -> Row:
    """A family whose writers have biases, edited in its weights alone."""
    config = sample(model_type)
    anatomy = anatomy_of(config)
    broken = _blocks_with(anatomy, lambda w: replace(w, bias=None))
    return _compared(BIASED[model_type], "biases", anatomy, broken, lambda seed: narrow_model(config, seed=seed), seeds)


def wrong_axis(seeds: int = SEEDS) -> Row:
    """Llama with heads times head size equal to its width, its attention output edited on the side of its inputs."""
    config = narrowed(sample("llama"))
    config.head_dim = config.hidden_size // config.num_attention_heads
    anatomy = anatomy_of(config)
    # Finding the anatomy makes heads of another size, so that axes can be told apart.
    anatomy = replace(anatomy, d_model=config.hidden_size)

    def square(seed: int) -> Any:
        model = build(config)
        randomise(model, seed)
        return model

    broken = _blocks_with(anatomy, lambda w: replace(w, axis=1) if w.role == "attention" else w)
    return _compared("Llama", "axis of a square `o_proj`", anatomy, broken, square, seeds)


def _compared(
    family: str, ignored: str, anatomy: Anatomy, broken: Anatomy, make: Callable[[int], Any], seeds: int
) -> Row:
    results = []
    for seed in range(seeds):
        model = make(seed)
        results.append(_left(model, anatomy, _direction(model, anatomy, seed), seed, broken))
    naive, ours = zip(*results, strict=True)
    return Row(family, ignored, None, _mean(naive), _mean(ours))


def _left(model: Any, anatomy: Anatomy, v: Tensor, seed: int, broken: Anatomy) -> tuple[Left, Left]:
    """What an edit by a broken anatomy leaves, and one by the right one."""
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    inputs = text_run(model, seed)
    before = _shares(model, anatomy, v, inputs)
    found = []
    for account in (broken, anatomy):
        edit_in_memory(model, plan_ablation(account, v[None], lambda name: weights[name]))
        after = _shares(model, anatomy, v, inputs)
        found.append(Left(after.added / before.added, after.stream / before.stream))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(weights[name])
    naive, ours = found
    return naive, ours


def _shares(model: Any, anatomy: Anatomy, v: Tensor, inputs: dict[str, Any]) -> Left:
    """The share along v, by root mean squares over writers and tokens."""
    added: list[Tensor] = []
    stream: list[Tensor] = []

    def into(found: list[Tensor]) -> Callable[[Tensor], Tensor]:
        def look(x: Tensor) -> Tensor:
            found.append(x.detach().double().reshape(-1, len(v)))
            return x

        return look

    modules = dict.fromkeys(_behind(writer) for writer in _writers(anatomy))
    hooks = [Hook(module, "output", into(added)) for module in modules]
    with torch.inference_mode(), hooked(model, [*hooks, Hook(anatomy.blocks[-1].module, "output", into(stream))]):
        model(**inputs, use_cache=False)
    return Left(*(float((x @ v.double()).norm() / x.norm()) for x in (torch.cat(added), torch.cat(stream))))


def _behind(writer: Writer) -> str:
    """The module whose output is added to the stream."""
    return writer.module if writer.norm is None else writer.norm.module


def _theory(gains: Sequence[Tensor], v: Tensor) -> float:
    """What is left of v behind gains g in vectors of all directions alike, once they have none along v.

    It is the sine of the angle between v and g * v; for gains of mean 1 and spread s, s / sqrt(1 + s^2).
    """
    cosines = [torch.nn.functional.cosine_similarity(gain * v, v, dim=0) for gain in gains]
    return float(np.mean([float((1 - cosine**2).clamp_min(0).sqrt()) for cosine in cosines]))


def _gain(model: Any, norm: Norm) -> Tensor:
    return model.get_parameter(_weight(norm)).detach() + norm.gain_offset


def _weight(norm: Norm) -> str:
    assert norm.weight is not None
    return norm.weight


def _writers(anatomy: Anatomy) -> tuple[Writer, ...]:
    return tuple(writer for writer in anatomy.writers if writer.layer is not None)


def _blocks_with(anatomy: Anatomy, change: Callable[[Writer], Writer]) -> Anatomy:
    blocks = tuple(replace(block, writers=tuple(map(change, block.writers))) for block in anatomy.blocks)
    return replace(anatomy, blocks=blocks)


def _direction(model: Any, anatomy: Anatomy, seed: int) -> Tensor:
    writer = anatomy.writers[0]
    width = model.get_parameter(writer.weight).shape[writer.axis]
    v = torch.randn(width, generator=torch.Generator().manual_seed(200 + seed))
    return v / v.norm()


def _mean(found: Sequence[Left]) -> Left:
    return Left(float(np.mean([x.added for x in found])), float(np.mean([x.stream for x in found])))


def rows(seeds: int = SEEDS) -> Iterator[Row]:
    """All lines of the table."""
    for spread in SPREADS:
        for model_type in POST_NORM:
            yield post_norm(model_type, spread, seeds)
    for model_type in BIASED:
        yield biases(model_type, seeds)
    yield wrong_axis(seeds)


def table(found: Sequence[Row]) -> str:
    """As Markdown."""
    lines = [
        "| family | ignored | expected | left in what writers add | left in the stream | ours, added | ours, stream |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        expected = "" if row.theory is None else f"{row.theory:.0%}"
        naive = f"{row.naive.added:.0%} | {row.naive.stream:.0%}"
        ours = f"{row.ours.added:.0e} | {row.ours.stream:.0e}"
        lines.append(f"| {row.family} | {row.ignored} | {expected} | {naive} | {ours} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What is left of a direction, naively and with this tool.")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="models and directions to take the mean of")
    print(table(list(rows(parser.parse_args().seeds))))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
