"""Checkpoints to measure with: random Llamas in bfloat16, of any size, made without loading any library of models."""

import json
from pathlib import Path

import numpy as np

WIDTH, INNER, HEADS, VOCABULARY = 1536, 4096, 12, 32000
SHARD_BYTES = 500_000_000
DIRECTION = "direction.safetensors"

_POOL = 1 << 25


def make_checkpoint(folder: Path, gigabytes: float, shard_bytes: int = SHARD_BYTES) -> int:
    """Write a sharded Llama of about the asked size into a new folder.

    Args:
        shard_bytes: a shard is closed when it has reached this many.

    Returns:
        bytes of all its files.
    """
    folder.mkdir(parents=True)
    shapes = _shapes(gigabytes)
    layers = sum(name.endswith("o_proj.weight") for name in shapes)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    pool = _random_numbers()
    shards = _dealt(shapes, shard_bytes)
    index: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_shard(folder / file, {name: shapes[name] for name in names}, pool, number)
        index |= dict.fromkeys(names, file)
    total = 2 * sum(rows * cols for rows, cols in shapes.values())
    content = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content, indent=2) + "\n")
    return sum(path.stat().st_size for path in folder.iterdir())


def make_direction(path: Path, rank: int = 1, width: int = WIDTH) -> Path:
    """A directions file of random orthonormal rows."""
    rows = np.linalg.qr(np.random.default_rng(0).standard_normal((width, rank)))[0].T.astype("<f4")
    path.write_bytes(_header({"direction": ("F32", rows.shape, 0)}) + rows.tobytes())
    return path


def _shapes(gigabytes: float) -> dict[str, tuple[int, int]]:
    """Every tensor's shape; norms are (1, width) here and get their one axis when they are written."""
    block = {f"self_attn.{part}_proj.weight": (WIDTH, WIDTH) for part in "qkvo"}
    block |= {"mlp.gate_proj.weight": (INNER, WIDTH), "mlp.up_proj.weight": (INNER, WIDTH)}
    block |= {"mlp.down_proj.weight": (WIDTH, INNER)}
    block |= {"input_layernorm.weight": (1, WIDTH), "post_attention_layernorm.weight": (1, WIDTH)}
    ends = {"model.norm.weight": (1, WIDTH), "lm_head.weight": (VOCABULARY, WIDTH)}
    fixed = 2 * sum(rows * cols for rows, cols in ({"embed": (VOCABULARY, WIDTH)} | ends).values())
    layers = max(1, round((gigabytes * 1e9 - fixed) / (2 * sum(rows * cols for rows, cols in block.values()))))
    shapes = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in block.items()}
    return shapes | ends


def _dealt(shapes: dict[str, tuple[int, int]], shard_bytes: int) -> list[list[str]]:
    """Names by shard, in order."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, (rows, cols) in shapes.items():
        if size >= shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += 2 * rows * cols
    return shards


def _random_numbers() -> np.ndarray:
    """bfloat16 numbers as their bits; tensors take different stretches of them, since drawing 5 GB takes minutes."""
    numbers = np.random.default_rng(0).standard_normal(_POOL, dtype=np.float32) * np.float32(0.02)
    return (numbers.view(np.uint32) >> 16).astype("<u2")


def _write_shard(path: Path, shapes: dict[str, tuple[int, int]], pool: np.ndarray, seed: int) -> None:
    entries, offset = {}, 0
    for name, (rows, cols) in shapes.items():
        entries[name] = ("BF16", (cols,) if rows == 1 else (rows, cols), offset)
        offset += 2 * rows * cols
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(_header(entries))
        for rows, cols in shapes.values():
            left = rows * cols
            while left:
                begin = int(rng.integers(0, _POOL // 2))
                piece = pool[begin : begin + left]
                file.write(piece.tobytes())
                left -= piece.size


def _header(entries: dict[str, tuple[str, tuple[int, ...], int]]) -> bytes:
    """A safetensors header: name -> dtype, shape and offset."""
    item = {"BF16": 2, "F32": 4}
    content = {
        name: {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [offset, offset + item[dtype] * int(np.prod(shape))],
        }
        for name, (dtype, shape, offset) in entries.items()
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **content}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
