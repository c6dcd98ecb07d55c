"""GGUF files written from scratch: the embedded model as llama.cpp reads it, and headers of any kind."""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from weight_edit.checkpoint.gguf.types import GGML_TYPES
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.organism.embedded import folder

ALIGNMENT = 32
UINT16, UINT32, INT32, FLOAT32, BOOL, TEXT, ARRAY, UINT64 = 2, 4, 5, 6, 7, 8, 9, 10
WIDTHS = {UINT16: 2, UINT32: 4, INT32: 4, FLOAT32: 4, BOOL: 1, UINT64: 8}
NORMAL, CONTROL, ADDED = 1, 3, 4  # types of tokens

Typed = tuple[int, Any]
"""A GGUF type with a value of it."""

F32 = 0


@dataclass
class Stored:
    """A tensor as it lies in a file; to be spoilt, too.

    Attributes:
        kind: the number of its type.
        dimensions: the innermost first.
        data: its bytes.
        offset: where they are said to begin in the data; None for where they do.
    """

    kind: int
    dimensions: list[int]
    data: bytes
    offset: int | None = None

    @classmethod
    def of(cls, array: np.ndarray) -> "Stored":
        """An array in float32."""
        return cls(F32, list(reversed(array.shape)), np.ascontiguousarray(array, dtype="<f4").tobytes())


def text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def value(kind: int, content: Any) -> bytes:
    """A value without its type; of an array `content` is (type, values)."""
    if kind == TEXT:
        return text(content)
    if kind == ARRAY:
        inner, values = content
        return struct.pack("<IQ", inner, len(values)) + b"".join(value(inner, each) for each in values)
    forms = {UINT16: "<H", UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?", UINT64: "<Q"}
    return struct.pack(forms[kind], content)


def gguf_bytes(
    entries: Sequence[tuple[str, Typed]],
    tensors: Sequence[tuple[str, Stored]] = (),
    *,
    alignment: int = ALIGNMENT,
    version: int = 3,
    padding: bytes = b"\0",
    more: tuple[int, bytes] = (0, b""),
) -> bytes:
    """The content of a GGUF file; a name or key may be there twice.

    Args:
        more: further entries: how many, and their bytes.
        alignment: by which it is laid out; it is said by an entry, if at all.
        padding: the byte between tensors.
    """
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries) + more[0]) + more[1]
    for key, (kind, content) in entries:
        head += text(key) + struct.pack("<I", kind) + value(kind, content)
    data = b""
    for name, stored in tensors:
        offset = len(data) if stored.offset is None else stored.offset
        count = len(stored.dimensions)
        head += text(name) + struct.pack(f"<I{count}Q", count, *stored.dimensions)
        head += struct.pack("<IQ", stored.kind, offset)
        data += stored.data + padding * (-len(stored.data) % alignment)
    return head + padding * (-len(head) % alignment) + data


def write_gguf(
    path: Path, entries: Mapping[str, Typed], tensors: Mapping[str, "np.ndarray | Stored"] | None = None, **layout: Any
) -> Path:
    """A GGUF file of version 3; arrays are tensors in float32. `layout` is that of `gguf_bytes`."""
    stored = [(name, each if isinstance(each, Stored) else Stored.of(each)) for name, each in (tensors or {}).items()]
    path.write_bytes(gguf_bytes(list(entries.items()), stored, **layout))
    return path


def mixed_tensors(seed: int = 0, width: int = 256) -> dict[str, Stored]:
    """Tensors in many types, some of odd sizes; plain ones have normal numbers, others random bytes."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, kind, shape in (
        ("token_embd.weight", 1, (48, width)),
        ("blk.0.attn_norm.weight", 0, (width,)),
        ("blk.0.attn_output.weight", 30, (width, 64)),
        ("blk.0.ffn_down.weight", 12, (width, 512)),
        ("blk.0.ffn_up.weight", 14, (512, width)),
        ("blk.0.ffn_down_exps.weight", 0, (3, width, 32)),
        ("rope_freqs.weight", 0, (33,)),
        ("blk.0.odd.bias", 1, (7,)),
        ("blk.1.ffn_down.weight", 17, (width, 256)),
        ("blk.1.ffn_up.weight", 8, (512, width)),
        ("blk.1.steps", 26, (5,)),
    ):
        each = GGML_TYPES[kind]
        count = int(np.prod(shape)) // each.numbers
        raw = rng.integers(0, 256, count * each.size, dtype=np.uint8)
        if kind in (0, 1, 30):
            numbers = rng.standard_normal(count).astype("<f4")
            raw = {0: numbers, 1: numbers.astype("<f2"), 30: numbers.view("<u4") >> 16}[kind]
            raw = raw.astype("<u2") if kind == 30 else raw
        found[name] = Stored(kind, list(reversed(shape)), raw.tobytes())
    return found


def mixed_entries(alignment: int | None = None) -> dict[str, Typed]:
    """Entries of every kind."""
    aligned: dict[str, Typed] = {} if alignment is None else {"general.alignment": (UINT32, alignment)}
    return {
        "general.architecture": (TEXT, "llama"),
        "general.name": (TEXT, "a model é"),
        **aligned,
        "llama.context_length": (UINT32, 512),
        "llama.rope.freq_base": (FLOAT32, 10000.0),
        "llama.layers": (ARRAY, (INT32, [1, -2, 3])),
        "llama.flags": (ARRAY, (BOOL, [True, False])),
        "tokenizer.ggml.tokens": (ARRAY, (TEXT, ["a", "bc", "", "é" * 40])),
        "tokenizer.ggml.scores": (ARRAY, (FLOAT32, [0.5] * 5000)),
        "tokenizer.chat_template": (TEXT, "{{ messages }}"),
    }


def mixed_gguf(path: Path, seed: int = 0, alignment: int | None = None, **layout: Any) -> Path:
    """A file with tensors of many types, which is no model that runs."""
    return write_gguf(path, mixed_entries(alignment), mixed_tensors(seed), alignment=alignment or ALIGNMENT, **layout)


def mixed_parts(folder: Path, count: int = 3, name: str = "m", seed: int = 0) -> list[Path]:
    """The same in several files, as llama.cpp's gguf-split makes them: the first has all entries."""
    tensors = list(mixed_tensors(seed).items())
    paths = []
    for number in range(count):
        entries: dict[str, Typed] = {
            **(mixed_entries() if not number else {}),
            "split.no": (UINT16, number),
            "split.count": (UINT16, count),
            "split.tensors.count": (INT32, len(tensors)),
        }
        path = folder / f"{name}-{number + 1:05}-of-{count:05}.gguf"
        paths.append(write_gguf(path, entries, dict(tensors[number::count])))
    return paths


def in_parts(file: Path, count: int) -> list[Path]:
    """A float32 GGUF file divided as llama.cpp's llama-gguf-split does: all that is said is in the first part."""
    opened = Checkpoint.open(file)
    header = opened.header_bytes(file.name)
    infos = list(opened.tensors.values())
    share = -(-len(infos) // count)
    parts = []
    for number in range(count):
        said: dict[str, Typed] = {
            "split.no": (UINT16, number),
            "split.count": (UINT16, count),
            "split.tensors.count": (INT32, len(infos)),
        }
        path = file.with_name(f"{file.stem}-{number + 1:05}-of-{count:05}.gguf")
        mine = infos[number * share : (number + 1) * share]
        arrays = {info.name: opened.values(info.name) for info in mine}
        parts.append(write_gguf(path, said, arrays, more=entries_of(header) if number == 0 else (0, b"")))
    file.unlink()
    return parts


def entries_of(header: bytes) -> tuple[int, bytes]:
    """How many entries a header has, and their bytes."""
    count, place = struct.unpack_from("<Q", header, 16)[0], 24
    for _ in range(count):
        place += 8 + struct.unpack_from("<Q", header, place)[0]
        place = _after(header, place + 4, struct.unpack_from("<I", header, place)[0])
    return count, bytes(header[24:place])


def _after(header: bytes, place: int, kind: int) -> int:
    if kind == TEXT:
        return place + 8 + int(struct.unpack_from("<Q", header, place)[0])
    if kind != ARRAY:
        return place + WIDTHS[kind]
    inner, count = struct.unpack_from("<IQ", header, place)
    place += 12
    for _ in range(count):
        place = _after(header, place, inner)
    return place


def llama_gguf(source: Path, path: Path, **changes: Typed | None) -> Path:
    """A Llama folder with a byte-level tokenizer as a GGUF file in float32.

    Args:
        changes: entries to set, with `__` for a dot, or to leave out where None.
    """
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    # As llama.cpp's own conversion has it: what is added and no control token is shown in texts.
    kinds = {entry["content"]: CONTROL if entry["special"] else ADDED for entry in tokenizer["added_tokens"]}
    vocabulary = {
        **tokenizer["model"]["vocab"],
        **{entry["content"]: entry["id"] for entry in tokenizer["added_tokens"]},
    }
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    merges = [each if isinstance(each, str) else " ".join(each) for each in tokenizer["model"]["merges"]]
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    entries: dict[str, Typed] = {
        "general.architecture": (TEXT, "llama"),
        "general.name": (TEXT, "a small model"),
        "general.file_type": (UINT32, 0),
        "llama.context_length": (UINT32, config["max_position_embeddings"]),
        "llama.embedding_length": (UINT32, config["hidden_size"]),
        "llama.block_count": (UINT32, config["num_hidden_layers"]),
        "llama.feed_forward_length": (UINT32, config["intermediate_size"]),
        "llama.attention.head_count": (UINT32, heads),
        "llama.attention.head_count_kv": (UINT32, shared),
        "llama.attention.layer_norm_rms_epsilon": (FLOAT32, config["rms_norm_eps"]),
        "llama.rope.dimension_count": (UINT32, config["head_dim"]),
        "llama.rope.freq_base": (FLOAT32, config["rope_theta"]),
        "llama.vocab_size": (UINT32, len(tokens)),
        "tokenizer.ggml.model": (TEXT, "gpt2"),
        # It splits digits as the embedded tokenizer does.
        "tokenizer.ggml.pre": (TEXT, "smollm"),
        "tokenizer.ggml.tokens": (ARRAY, (TEXT, tokens)),
        "tokenizer.ggml.token_type": (ARRAY, (5, [kinds.get(token, NORMAL) for token in tokens])),
        "tokenizer.ggml.merges": (ARRAY, (TEXT, merges)),
        "tokenizer.ggml.bos_token_id": (UINT32, config["bos_token_id"]),
        "tokenizer.ggml.eos_token_id": (UINT32, config["eos_token_id"]),
        "tokenizer.ggml.padding_token_id": (UINT32, config["pad_token_id"]),
        "tokenizer.ggml.add_bos_token": (BOOL, False),
        "tokenizer.chat_template": (TEXT, (source / "chat_template.jinja").read_text(encoding="utf-8")),
    }
    for name, change in changes.items():
        entries.pop(name.replace("__", "."), None)
        if change is not None:
            entries[name.replace("__", ".")] = change
    weights = {
        name: tensor.to(torch.float32).numpy() for name, tensor in load_file(source / "model.safetensors").items()
    }
    return write_gguf(path, entries, dict(_renamed(weights, heads, shared)))


def organism_gguf(path: Path, name: str = "organism", **changes: Typed | None) -> Path:
    """An embedded model as a GGUF file; see `llama_gguf`."""
    return llama_gguf(folder(name), path, **changes)


_OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_INNER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def _renamed(weights: Mapping[str, np.ndarray], heads: int, shared: int) -> Sequence[tuple[str, np.ndarray]]:
    found = []
    for name, array in weights.items():
        if name in _OUTER:
            found.append((_OUTER[name], array))
            continue
        number, _, module = name.removeprefix("model.layers.").partition(".")
        module = module.removesuffix(".weight")
        if module in ("self_attn.q_proj", "self_attn.k_proj"):
            array = _interleaved(array, heads if module.endswith("q_proj") else shared)
        found.append((f"blk.{number}.{_INNER[module]}.weight", array))
    return found


def _interleaved(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows in the order of llama.cpp's rotation, which turns neighbours instead of halves."""
    halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)
