"""The tables of a model that was looked at, and of what an edit of it costs, made of their documents."""

from collections.abc import Mapping
from typing import Any

from weight_edit.tables.amounts import amount, between, count, time_between
from weight_edit.tables.rows import MOST, left_out, named_rows
from weight_edit.tables.table import Cell, Estimate, Table
from weight_edit.utils.name_patterns import patterns

Document = Mapping[str, Any]

_ROLES = {"attention": "mixes tokens", "mlp": "MLP", "projector": "images or sounds"}
_REACHES = "An edit reaches all that is written; whether a direction carries a behaviour is another question."


def role_in_words(role: str) -> str:
    """What a writer is, as tables say it."""
    return _ROLES.get(role, role)


def inspection(document: Document) -> list[Table]:
    """The tables of an inspection: the model, what writes, what reads, and the proof."""
    anatomy, proof = document.get("anatomy", {}), document.get("proof", {})
    if not anatomy:
        return []
    tied = "is tied to the embedding" if anatomy.get("tied") else "has a weight of its own"
    tensors = document.get("tensors", {})
    stored = f"{len(tensors)} tensors" if document.get("weights") else "none yet: names and shapes are those in memory"
    said: list[tuple[str, Any]] = [
        ("model", document.get("model")),
        ("architecture", anatomy.get("architecture")),
        ("residual stream", f"{anatomy.get('d_model')} wide"),
        ("blocks", len(anatomy.get("blocks", ()))),
        ("unembedding", tied),
        ("on disk", stored),
    ]
    said += [("quantised", document["quantised"])] if document.get("quantised") else []
    said += [("not followed", sentence) for sentence in anatomy.get("unknown", ())]
    gains = document.get("gains")
    if gains:
        loud = " (loud)" if gains["loud"] else ""
        said.append(("largest gain behind writers", f"{gains['ratio']:.3g} times the median one{loud}"))
    said += [(f"{each['what']}", f"{each['names']}, {each['count']}") for each in document.get("extra_patterns", ())]
    proven = [
        ("left of the stream along the directions, before", Estimate(proof["leak_before"])),
        ("left of it after an ablation", Estimate(proof["leak"])),
        ("largest difference of logits between hooks and weights", Estimate(proof["logit_difference"])),
    ]
    title = "The proof, an ablation of a narrow random copy"
    proof_table = Table(title=title, columns=("", ""), rows=tuple(proven), note=_REACHES)
    return [named_rows("The model", said), _writers(document), _readers(anatomy), proof_table]


def _writers(document: Document) -> Table:
    """What writes, a row for each role, form and pattern of names on disk."""
    anatomy, tensors, edited = (document.get(name, {}) for name in ("anatomy", "tensors", "edited"))
    writers = [*anatomy.get("embeddings", ()), *(each for block in anatomy["blocks"] for each in block["writers"])]
    groups: dict[tuple[str, str], list[str]] = {}
    for writer in writers:
        role = role_in_words(writer["role"])
        places = [each["tensor"] for each in edited.get(writer["weight"], ())]
        for name in places or [writer["weight"]]:
            known = tensors.get(name)
            form = "" if known is None else f"{known['dtype']} {' x '.join(map(str, known['shape']))}"
            groups.setdefault((role, form), []).append(name)
    rows = [
        (pattern, role, number, form) for (role, form), names in groups.items() for pattern, number in patterns(names)
    ]
    columns = ("tensors", "what", "number", "stored as")
    return Table(title="What writes to the stream", columns=columns, rows=tuple(rows[:MOST]), note=left_out(rows))


def _readers(anatomy: Document) -> Table:
    readers = [each for block in anatomy["blocks"] for each in block["readers"]]
    names = [name for reader in readers for name in reader["modules"]]
    rows = patterns([*names, *filter(None, [anatomy.get("unembedding")])])
    columns = ("modules", "number")
    return Table(title="What reads from it", columns=columns, rows=tuple(rows[:MOST]), note=left_out(rows))


def cost_plan(document: Document) -> list[Table]:
    """The tables of a plan: the model, each step, and the memory at the peak."""
    size, prompts, candidates = (document.get(name) or {} for name in ("size", "prompts", "candidates"))
    if not size:
        return []
    measured = "" if prompts["measured"] else ", not counted but assumed"
    lengths = f"{prompts['target_tokens']:.0f} and {prompts['baseline_tokens']:.0f} tokens{measured}"
    low, high = candidates["low"], candidates["high"]
    said: list[tuple[str, Any]] = [
        ("model", document["model"]),
        ("architecture", size["architecture"]),
        ("parameters", f"{count(size['parameters'])}, {size['dtype']}, {amount(size['parameter_bytes'], 'B')}"),
        ("blocks", f"{size['layers']} of up to {amount(size['block_bytes'], 'B')}"),
        ("prompts of each set", f"{prompts['n_train']} to find with, {prompts['n_validation']} to choose with"),
        ("target and baseline prompts", lengths),
        ("candidates", low if low == high else f"{low} to {high}"),
        ("device", document["device"]),
    ]
    said += [("weights", "offloaded to disk")] if document["offload"] else []
    said += [("processes", document["processes"])] if document["processes"] != 1 else []
    rates = document.get("rates")
    if rates:
        said.append(("computes, reads", f"{amount(rates['flops'], 'FLOP/s')}, {amount(rates['disk'], 'B/s')}"))
    note = " ".join(document.get("notes", ()))
    return [named_rows("An estimate; nothing of it was run", said, note), _steps(document), _memory(document)]


def _steps(document: Document) -> Table:
    total: dict[str, Any] = {"name": "all", "what": "", "passes": {"low": 0, "high": 0}, **document["total"]}
    rows: list[tuple[Cell, ...]] = [
        (
            step["name"],
            step["what"],
            between(step["passes"]["low"], step["passes"]["high"]),
            between(step["flops"]["low"], step["flops"]["high"]),
            between(step["bytes_read"]["low"], step["bytes_read"]["high"], "B"),
            _time(step["seconds"]),
        )
        for step in [*document["steps"], total]
    ]
    columns = ("step", "what", "passes", "FLOPs", "read", "time")
    return Table(title="What each step costs", columns=columns, rows=tuple(rows))


def _time(seconds: Document | None) -> str:
    return "not known" if seconds is None else time_between(seconds["low"], seconds["high"])


def _memory(document: Document) -> Table:
    words = {"total": "all of it", "on_device": "of it on the device"}
    memory = {name: value for name, value in document["memory"].items() if value}
    if document["device"] == "cpu":
        memory.pop("on_device", None)
    found = [(words.get(name, name.replace("_", " ")), amount(value, "B")) for name, value in memory.items()]
    each = ", of each process" if document["processes"] != 1 else ""
    return named_rows(f"Memory at the peak of the find{each}", found)
