"""Anatomies broken on purpose, one fault each, and how much the proof then finds left in the stream.

For all families, by hand: `PYTHONPATH=. python tests/catalogue/faults.py`, which prints one line for each."""

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from weight_edit.anatomy.derive import anatomy_of
from weight_edit.anatomy.inputs.passes import runs
from weight_edit.anatomy.narrow.small import build, narrow_model, narrowed, randomise
from weight_edit.anatomy.parts import Anatomy, Norm, Writer
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.errors import UnsupportedError
from weight_edit.inspection.catalogue.samples import sample
from weight_edit.plan.plan import plan_ablation
from weight_edit.proofs.architecture import edit_in_memory, stream_at_points, stream_in_graph

CAUGHT = 1e-4
NONE = "none"
SQUARE = ("intermediate_size", "moe_intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "dim_ff")
"""Widths that make a block's last linear map square when they are the stream's."""


@dataclass(frozen=True)
class Subject:
    """A small model with the anatomy that was found for it; its weights may be changed and `restore`d."""

    model: Any
    anatomy: Anatomy
    rows: Tensor
    passes: Sequence[Mapping[str, Any]]
    weights: Mapping[str, Tensor]

    @classmethod
    def of(cls, model_type: str, variant: str | None = None, *, square: bool = False) -> "Subject":
        """A sample of a family.

        Args:
            model_type, variant: as in `sample`.
            square: whether the hidden layers of its feed-forward parts are as wide as its stream.

        Raises:
            UnsupportedError: the family is refused.
        """
        config = sample(model_type, variant)
        anatomy = anatomy_of(config)
        model: Any = _square(config) if square else narrow_model(config)
        width = anatomy.d_model
        generator = torch.Generator().manual_seed(1)
        rows = torch.from_numpy(orthonormal_rows(torch.randn(2, width, generator=generator))).float()
        weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        return cls(model, anatomy, rows, runs(model, anatomy.media, 2), weights)

    def restore(self) -> None:
        """Undo an edit."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(self.weights[name])

    def leak(self, anatomy: Anatomy) -> float:
        """What is left in the stream after an edit by another anatomy; infinite when the edit is impossible.

        What the proof looks at, cheapest first, until there is something: every point that modules hold, pass by pass,
        and only if all of these are clean every value of the stream.
        """
        plan = plan_ablation(anatomy, self.rows, lambda name: self.weights[name])
        try:
            edit_in_memory(self.model, plan)
            found = 0.0
            for inputs in self.passes:
                found = max(found, *stream_at_points(self.model, self.anatomy, self.rows, inputs))
                if found > CAUGHT:
                    return found
            return max(found, *(s for inputs in self.passes for s in stream_in_graph(self.model, self.rows, inputs)))
        except ValueError as error:
            if "wide" not in str(error):
                raise
            return math.inf
        finally:
            self.restore()


def _square(config: Any) -> Any:
    config = narrowed(config)
    text = config.get_text_config()
    for key in SQUARE:
        if isinstance(vars(text).get(key), int):
            setattr(text, key, text.hidden_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(config)
    randomise(model, 0)
    return model


def faults(anatomy: Anatomy, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Anatomy]]:
    """Each fault with its name; of every role of writer there is, one is struck."""
    for role, writer in _one_of_each_role(anatomy).items():
        yield f"{role} dropped", _without(anatomy, writer)
        for axis in range(weights[writer.weight].ndim):
            if axis != writer.axis:
                yield f"{role} along axis {axis}", _with(anatomy, replace(writer, axis=axis))
    for writer in anatomy.writers:
        if writer.bias is not None:
            yield f"{_role(anatomy, writer)} bias left", _with(anatomy, replace(writer, bias=None))
            break
    norms = {_kind(anatomy, writer): writer for writer in anatomy.writers if writer.norm is not None}
    for (kind, _, gainless, role), writer in norms.items():
        norm = writer.norm
        assert norm is not None
        if gainless and kind != "layer":
            # Dividing by a length alone turns no direction: there is nothing to ignore.
            continue
        yield f"{role} {kind} norm ignored", _with(anatomy, replace(writer, norm=None))
        if norm.weight is not None:
            wrong = replace(norm, gain_offset=1.0 - norm.gain_offset)
            yield f"{role} {kind} gain off by one", _with_norm(anatomy, writer, wrong)
        if norm.inner is not None:
            yield f"{role} inner norm ignored", _with_norm(anatomy, writer, replace(norm, inner=None))
        if norm.bias is not None:
            yield f"{role} {kind} norm's bias left", _with_norm(anatomy, writer, replace(norm, bias=None))


def _kind(anatomy: Anatomy, writer: Writer) -> tuple[str, float, bool, str]:
    norm = writer.norm
    assert norm is not None
    role = _role(anatomy, writer)
    return norm.kind, norm.gain_offset, norm.weight is None, role if norm.inner is None else f"{role}, two norms,"


def _role(anatomy: Anatomy, writer: Writer) -> str:
    return "experts" if len(anatomy.shapes[writer.weight]) == 3 else writer.role


def _one_of_each_role(anatomy: Anatomy) -> dict[str, Writer]:
    found: dict[str, Writer] = {}
    for writer in anatomy.writers:
        found.setdefault(_role(anatomy, writer), writer)
    return found


def _changed(anatomy: Anatomy, changed: Any) -> Anatomy:
    def writers(of: tuple[Writer, ...]) -> tuple[Writer, ...]:
        return tuple(new for writer in of if (new := changed(writer)) is not None)

    blocks = tuple(replace(block, writers=writers(block.writers)) for block in anatomy.blocks)
    return replace(anatomy, embeddings=writers(anatomy.embeddings), blocks=blocks)


def _without(anatomy: Anatomy, writer: Writer) -> Anatomy:
    return _changed(anatomy, lambda w: None if w.weight == writer.weight else w)


def _with(anatomy: Anatomy, writer: Writer) -> Anatomy:
    return _changed(anatomy, lambda w: writer if w.weight == writer.weight else w)


def _with_norm(anatomy: Anatomy, writer: Writer, norm: Norm) -> Anatomy:
    """Another norm behind a writer, and behind all others that are written through the same one."""
    same = writer.norm
    return _changed(anatomy, lambda w: replace(w, norm=norm) if w.norm == same else w)


def struck(model_type: str, variant: str | None = None) -> dict[str, float]:
    """Every fault of a family -> what is left along the directions; `NONE` without a fault."""
    subject = Subject.of(model_type, variant)
    found = {NONE: subject.leak(subject.anatomy)}
    for name, broken in faults(subject.anatomy, subject.weights):
        found[name] = subject.leak(broken)
    if not any("axis" in name and math.isfinite(leak) for name, leak in found.items()):
        found |= _transposed(model_type, variant)
    return found


def _transposed(model_type: str, variant: str | None) -> dict[str, float]:
    """Faults of axes that are as long as the right one; none where a family has no such form."""
    try:
        subject = Subject.of(model_type, variant, square=True)
    except UnsupportedError:
        return {}
    return {
        f"{name}, where it fits": leak
        for name, broken in faults(subject.anatomy, subject.weights)
        if "axis" in name and math.isfinite(leak := subject.leak(broken))
    }


def main(types: Sequence[str]) -> None:
    from weight_edit.inspection.catalogue.entries import entries

    smallest = math.inf
    for model_type in types or [entry.model_type for entry in entries()]:
        started = time.perf_counter()
        try:
            found = struck(model_type)
        except UnsupportedError as error:
            print(f"{model_type:28} refused  {error}", flush=True)
            continue
        except (AssertionError, RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
            print(f"{model_type:28} ERROR {type(error).__name__} {error}", flush=True)
            continue
        least = min(leak for name, leak in found.items() if name != NONE)
        smallest = min(smallest, least)
        square = sum("axis" in name and math.isfinite(leak) for name, leak in found.items())
        missed = {name: leak for name, leak in found.items() if name != NONE and not leak > CAUGHT}
        print(
            f"{model_type:28} {len(found) - 1:2} faults, least {least:.1e}, none {found[NONE]:.1e}, "
            f"{square} axes that fit, {time.perf_counter() - started:.1f} s {missed or ''}",
            flush=True,
        )
    print(f"smallest of all: {smallest:.1e}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
