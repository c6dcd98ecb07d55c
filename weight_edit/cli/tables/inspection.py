"""Terminal output of a model's anatomy: a tree in which equal blocks are merged."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.console import Console
from rich.tree import Tree

from weight_edit.cli.tables.results import safe
from weight_edit.tables.models import role_in_words
from weight_edit.utils.name_patterns import numbers, patterns

if TYPE_CHECKING:
    from weight_edit.anatomy.parts import Block, Norm, Reader, Writer
    from weight_edit.inspection.gains import Gains
    from weight_edit.inspection.inspect import Inspection

_KINDS = {"rms": "RMS norm", "layer": "LayerNorm", "gain": "gain"}
MOST_EXTRA = 8


def inspection(found: "Inspection", console: Console) -> None:
    """Print the anatomy as a tree."""
    anatomy = found.anatomy
    tree = Tree(f"[bold]{safe(found.name)}[/]: {safe(anatomy.architecture)}")
    tree.add(f"residual stream {anatomy.d_model} wide, {anatomy.n_layers} blocks")
    stream = tree.add("the stream starts from")
    for writer in anatomy.embeddings:
        _add_writer(stream, found, [writer], "")
    for alike in _alike(found):
        _add_blocks(tree, found, alike)
    end = tree.add("the stream ends in")
    end.add(safe(" -> ".join(filter(None, (anatomy.final_norm, anatomy.unembedding)))))
    end.add(_unembedding(found))
    if anatomy.unknown:
        branch = tree.add("[yellow]not followed[/]: bake edits all the rest under --projector partial")
        for sentence in anatomy.unknown:
            branch.add(safe(sentence))
    _add_extra(tree, found)
    if found.quantised:
        otherwise = "" if _in_gguf(found) else ", or --dequantize"
        tree.add(f"quantised: {safe(found.quantised)}; what writes is edited in its format{otherwise}")
    console.print(tree, highlight=False)
    if found.gains is not None and found.gains.loud:
        console.print(_loud(found.gains), highlight=False)
    if found.disk is None:
        console.print("No weights are there yet: names and shapes are those in memory.")
    proof = found.proof
    console.print(
        f"It can be edited, which is proven on a narrow copy with random weights: after an ablation {proof.leak:.1e} "
        f"of the residual stream is left along the directions, where {proof.leak_before:.2f} was before (looked at in "
        f"all {proof.values} places of the computation where the stream is), and the edited weights answer as hooks do "
        f"(logits differ by {proof.logit_difference:.1e}). So an edit reaches all that is written; whether a direction "
        "carries a behaviour is another question.",
        highlight=False,
    )


def _loud(gains: "Gains") -> str:
    loudest = max(gains.blocks, key=lambda block: block.ratio)
    return (
        f"[yellow]note:[/] the norms behind writers are loud: their largest gain is {gains.ratio:.1f} times the median "
        f"one (median of {len(gains.blocks)} blocks; {loudest.ratio:.0f} times in block {loudest.layer}, coordinate "
        f"{loudest.coordinate}), so that one coordinate may own a mean difference; find scales it then, see its option "
        "loud."
    )


def _unembedding(found: "Inspection") -> str:
    anatomy = found.anatomy
    if not anatomy.tied:
        return "its weight is a tensor of its own"
    stored = found.disk is not None and anatomy.unembedding_weight in found.disk
    twice = ", and stored twice" if stored and anatomy.unembedding_weight != anatomy.embedding_weight else ""
    ways = "both or skip" if _in_gguf(found) else "both, untie or skip"
    return f"its weight is tied to the embedding{twice}: --embeddings {ways}"


def _in_gguf(found: "Inspection") -> bool:
    """Whether the tensors cannot change their sizes, as in a GGUF file."""
    return found.disk is not None and bool(found.disk.layout.container)


def _add_blocks(tree: Tree, found: "Inspection", alike: Sequence["Block"]) -> None:
    first = alike[0]
    path = first.module.rpartition(".")[0]
    parallel = " (parallel: all read the block's input)" if first.mid is None and len(first.writers) > 1 else ""
    branch = tree.add(f"[bold]{safe(path)} {_which([block.layer for block in alike])}[/]{parallel}")
    for reader in first.readers:
        branch.add(safe(_reader(reader, first.module + ".")))
    for place in range(len(first.writers)):
        _add_writer(branch, found, [block.writers[place] for block in alike], first.module + ".")


def _which(layers: Sequence[int]) -> str:
    """The numbers of blocks, with any regularity among them."""
    if len(layers) == 1:
        return str(layers[0])
    steps = {b - a for a, b in pairwise(layers)}
    count = f"{len(layers)} blocks"
    if len(steps) == 1 and steps != {1} and len(layers) > 2:
        return f"{layers[0]}, {layers[1]}, ..., {layers[-1]} ({count}, every {_ordinal(steps.pop())})"
    return f"{numbers(layers)} ({count})"


def _ordinal(number: int) -> str:
    return {2: "2nd", 3: "3rd"}.get(number, f"{number}th")


def _reader(reader: "Reader", within: str) -> str:
    """A reader's line: "reads input_layernorm -> self_attn: q_proj, k_proj"."""
    by_parent: dict[str, list[str]] = {}
    for module in reader.modules:
        parent, _, name = module.removeprefix(within).rpartition(".")
        by_parent.setdefault(parent, []).append(name)
    read = "; ".join(
        f"{parent}: {', '.join(names)}" if parent else ", ".join(names) for parent, names in by_parent.items()
    )
    through = [reader.norm.removeprefix(within)] if reader.norm else []
    return "reads   " + " -> ".join([*through, read or "(no map)"])


def _add_writer(tree: Tree, found: "Inspection", alike: Sequence["Writer"], within: str) -> None:
    """Add a writer's line, and below it one for each kind of tensor on disk."""
    first = alike[0]
    module = (first.module or first.weight).removeprefix(within)
    way = [module, *_norms(first.norm, within)]
    way += _scale([writer.scale for writer in alike])
    branch = tree.add(safe(f"writes  {' -> '.join(way)}   ({role_in_words(first.role)})"))
    for line in _tensors(found, [(w.weight, w.axis) for w in alike], "outputs along axis"):
        branch.add(line)
    for line in _tensors(found, [(w.bias, w.bias_axis) for w in alike if w.bias], "bias, axis"):
        branch.add(line)


def _scale(scales: Sequence[float]) -> list[str]:
    """A constant factor in words; one that differs by block may be a parameter, random here."""
    if all(abs(scale - 1) <= 1e-3 for scale in scales):
        return []
    return [f"times {scales[0]:.4g}" if max(scales) - min(scales) <= 1e-3 else "times a number for each block"]


def _norms(norm: "Norm | None", within: str) -> list[str]:
    """The norms between a writer and the stream, the nearest to the writer first."""
    return [] if norm is None else [*_norms(norm.inner, within), _norm(norm, within)]


def _norm(norm: "Norm", within: str) -> str:
    kind = _KINDS.get(norm.kind, norm.kind)
    if norm.weight is None:
        return f"{kind} without gain"
    gain = "1 + weight" if norm.gain_offset else "weight"
    name = norm.weight if norm.kind == "gain" else norm.module
    return f"{name.removeprefix(within)} ({kind}, gain {gain}{', bias' if norm.bias else ''})"


def _tensors(found: "Inspection", parameters: Sequence[tuple[str, int]], what: str) -> list[str]:
    """Lines on the tensors of like writers: name pattern, dtype, shape, axis on disk."""
    forms: dict[tuple[str, tuple[int, ...], int], list[str]] = {}
    for parameter, axis in parameters:
        if found.disk is None:
            forms.setdefault(("", found.anatomy.shapes[parameter], axis), []).append(parameter)
        for name, along in found.places.get(parameter, ()):
            forms.setdefault((*found.numbers(name), along), []).append(name)
    lines = []
    for (dtype, shape, axis), names in forms.items():
        for pattern, count in patterns(names):
            several = f" ({count} tensors)" if count > 1 else ""
            # No spaces within, so that a narrow terminal does not break it.
            size = f"{dtype} [{','.join(map(str, shape))}]".strip()
            lines.append(f"{safe(pattern)}{several}  [dim]{safe(size)}, {what} {axis}[/]")
    return lines


def _add_extra(tree: Tree, found: "Inspection") -> None:
    extra = found.extra
    if not extra:
        return
    count = sum(number for _, number, _ in extra)
    branch = tree.add(f"{count} more tensor{'s' if count > 1 else ''} on disk, kept byte for byte")
    for pattern, number, what in extra[:MOST_EXTRA]:
        branch.add(f"{safe(pattern)}: {number} tensor{'s' if number > 1 else ''}: {what}")
    if found.mtp and found.mtp_places is None:
        branch.add("how multi-token prediction writes is not understood, so --mtp edit is refused")
    elif found.mtp_places:
        branch.add(f"{len(found.mtp_places)} tensors of multi-token prediction write; --mtp edit edits them too")
    if len(extra) > MOST_EXTRA:
        branch.add(f"... and {len(extra) - MOST_EXTRA} more patterns, all of them under --json")


def _alike(found: "Inspection") -> list[list["Block"]]:
    """Groups of blocks that differ in nothing but their number, in order."""
    groups: dict[str, list[Block]] = {}
    for block in found.anatomy.blocks:
        groups.setdefault(_form(found, block), []).append(block)
    return list(groups.values())


def _form(found: "Inspection", block: "Block") -> str:
    """Everything shown of a block except its number."""
    writers = [
        (
            w.role,
            w.module,
            w.weight,
            w.axis,
            w.bias,
            w.norm,
            abs(w.scale - 1) > 1e-3,
            _stored(found, (w.weight, w.bias)),
        )
        for w in block.writers
    ]
    text = repr((writers, block.readers, block.mid)).replace(f"{block.module}.", "")
    return text.replace(f"layer={block.layer}", "")


def _stored(found: "Inspection", parameters: Iterable[str | None]) -> list[object]:
    """The distinct forms on disk: other shapes or dtypes make another kind of block."""
    places = [place for name in parameters if name for place in found.places.get(name, ())]
    shapes = [found.anatomy.shapes[name] for name in parameters if name]
    return [shapes, sorted({repr((found.numbers(name), axis)) for name, axis in places})]
