"""Damaged checkpoints, each made again from its seed: for the tests here and for longer runs elsewhere.

write(folder, SAMPLES["sharded"]); what = mutate(folder, seed)
"""

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Change = Callable[[random.Random, Path], str]

PIECES = [b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\ud800", b"\\u0000", b"\xff", b"\0", b"\n", b"../", b"/"]
PIECES += [b"-1", b"-0", b"0", b"00", b"1e9", b"1.0", b"NaN", b"null", b"true", b'"a"', b"[" * 2000, b'{"a":' * 2000]
PIECES += [
    b"9" * 20,
    b"9" * 5000,
    b"model.",
    b".safetensors",
    b"__metadata__",
    b"dtype",
    b"F32",
    b"F4",
    b"\xef\xbb\xbf",
]

NUMBERS = [-1, 0, 1, 2, 3, 7, 8, 12, 255, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30]
NAMES = [
    "",
    "a",
    "model.scale",
    "__metadata__",
    "dtype",
    "../x",
    "/etc/passwd",
    "a\\b",
    "x\x1b[31m\n",
    "\ud800",
    "é" * 400,
]
NAMES += ["config.json", "model.safetensors", "model-00001-of-00002.safetensors", "x.safetensors", "../x.safetensors"]
NAMES += [
    "./model.safetensors",
    "/dev/zero",
    "model.safetensors.index.json",
    "a/b.safetensors",
    "\0.safetensors",
    "x.bin",
]
DTYPES = [
    "F32",
    "BF16",
    "F16",
    "F64",
    "F4",
    "F6_E2M3",
    "F8_E4M3",
    "F8_E5M2",
    "F8_E8M0",
    "U8",
    "I64",
    "BOOL",
    "C64",
    "f32",
]
VALUES: list[Any] = [
    *NUMBERS,
    *NAMES,
    *DTYPES,
    None,
    True,
    1.5,
    float("nan"),
    [],
    {},
    [[]],
    {"a": {}},
    [1, 2],
    [0, 8, 8],
]
LENGTHS = [0, 1, 2, 7, 8, 100, 10**6, 10**8, 10**8 + 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
KEYS = [
    "transformers_weights",
    "quantization_config",
    "text_config",
    "compression_config",
    "model_type",
    "architectures",
]
METHODS: list[Any] = ["fp8", "compressed-tensors", "mxfp4", "gptq", "", None, 4, ["fp8"], {"fp8": 1}]


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """A folder with these files."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def mutate(folder: Path, seed: int) -> str:
    """Damage a checkpoint folder in place, in one to three ways; says how. The same seed does the same."""
    rng = random.Random(seed)
    said = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        change = rng.choices(list(CHANGES), list(CHANGES.values()))[0]
        if any(path.is_file() for path in folder.iterdir()):
            said.append(f"{change.__name__}({change(rng, folder)})")
    return ", ".join(said)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Fail what takes longer, even if it waits for something. Main thread only."""

    def stop(*args: object) -> None:
        raise AssertionError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _pick(rng: random.Random, folder: Path, ending: str = "") -> Path | None:
    found = [path for path in sorted(folder.rglob(f"*{ending}")) if path.is_file() and not path.is_symlink()]
    return rng.choice(found) if found else None


def _splice(rng: random.Random, raw: bytes, reach: int) -> bytes:
    for _ in range(rng.randint(1, 3)):
        at, length = rng.randint(0, min(len(raw), reach)), rng.choice([0, 0, 1, 1, 2, 5, 30])
        put = rng.choice([rng.choice(PIECES), rng.randbytes(rng.randint(0, 3)), raw[at : at + 40]])
        raw = raw[:at] + put + raw[at + length :]
    return raw


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _alter(rng: random.Random, value: Any, depth: int = 0) -> Any:
    """A JSON value with one thing in it changed, somewhere."""
    if isinstance(value, dict) and value and (depth == 0 or rng.random() < 0.8):
        key = rng.choice(list(value))
        kind = rng.choice(["drop", "rename", "twin", "value", "value", "into", "into", "into", "add"])
        if kind == "drop":
            del value[key]
        elif kind == "rename":
            value[rng.choice([*NAMES, *value])] = value.pop(key)
        elif kind == "twin":
            value[rng.choice(list(value))] = value[key]
        elif kind == "value":
            value[key] = rng.choice(VALUES)
        elif kind == "add":
            value[rng.choice([*NAMES, *KEYS])] = rng.choice(VALUES)
        else:
            value[key] = _alter(rng, value[key], depth + 1)
        return value
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        kind = rng.choice(["drop", "twin", "into", "into", "turn"])
        if kind == "drop":
            del value[at]
        elif kind == "twin":
            value.insert(at, value[at])
        elif kind == "turn":
            value.reverse()
        else:
            value[at] = _alter(rng, value[at], depth + 1)
        return value
    if type(value) is int and rng.random() < 0.8:
        return rng.choice([value + rng.choice([-8, -4, -1, 1, 4, 8]), -value, value * 2, *NUMBERS])
    return rng.choice([*VALUES, *DTYPES])


def _header_of(path: Path) -> tuple[bytes, bytes]:
    raw = path.read_bytes()
    length = min(int.from_bytes(raw[:8], "little"), len(raw))
    return raw[8 : 8 + length], raw[8 + length :]


def header_text(rng: random.Random, folder: Path) -> str:
    """Bytes of a header replaced; its length kept right, or not."""
    path = _pick(rng, folder, ".safetensors")
    if path is None:
        return "no shard"
    text, data = _header_of(path)
    changed = _splice(rng, text, len(text))
    length = len(changed) if rng.random() < 0.8 else len(text)
    path.write_bytes(length.to_bytes(8, "little") + changed + data)
    return path.name


def header_json(rng: random.Random, folder: Path) -> str:
    """A header that is still JSON says something else."""
    path = _pick(rng, folder, ".safetensors")
    if path is None:
        return "no shard"
    text, data = _header_of(path)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return "no JSON"
    changed = _dump(_alter(rng, found))
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + data)
    return path.name


def offsets(rng: random.Random, folder: Path) -> str:
    """Data offsets moved, swapped, stretched or made negative."""
    path = _pick(rng, folder, ".safetensors")
    if path is None:
        return "no shard"
    text, data = _header_of(path)
    try:
        found = json.loads(text)
        entries = [entry for entry in found.values() if "data_offsets" in entry]
        one, other = rng.choice(entries), rng.choice(entries)
        begin, end = one["data_offsets"]
        shift = rng.choice([-8, -1, 1, 4, 2**40, 2**64])
        choices = [[begin + shift, end + shift], [begin, end + shift], [end, begin], other["data_offsets"], [0, end]]
        one["data_offsets"] = rng.choice(choices)
    except (ValueError, RecursionError, AttributeError, IndexError, TypeError):
        return "no offsets"
    changed = _dump(found)
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + data)
    return path.name


def header_length(rng: random.Random, folder: Path) -> str:
    """The eight bytes of length say something else."""
    path = _pick(rng, folder, ".safetensors")
    if path is None:
        return "no shard"
    raw = path.read_bytes()
    path.write_bytes(rng.choice([*LENGTHS, len(raw), max(len(raw) - 8, 0)]).to_bytes(8, "little") + raw[8:])
    return path.name


def json_text(rng: random.Random, folder: Path) -> str:
    """Bytes of the config or the index replaced."""
    path = _pick(rng, folder, ".json")
    if path is None:
        return "no JSON"
    path.write_bytes(_splice(rng, path.read_bytes(), 1500))
    return path.name


def json_value(rng: random.Random, folder: Path) -> str:
    """The config or the index is still JSON and says something else."""
    path = _pick(rng, folder, ".json")
    if path is None:
        return "no JSON"
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return "no JSON"
    path.write_bytes(_dump(_alter(rng, found)))
    return path.name


def config_key(rng: random.Random, folder: Path) -> str:
    """A key of the config that decides what is read has a hostile value."""
    path = folder / "config.json"
    if path.is_symlink() or not path.is_file():
        return "no config"
    try:
        found = json.loads(path.read_bytes())
        key = rng.choice(KEYS)
        stored = {"quant_method": rng.choice(METHODS), "config_groups": rng.choice(VALUES), "format": "float-quantized"}
        stored["weight_block_size"] = rng.choice([*VALUES, [128, 128], [1, 1], ["a", "b"], [True, True]])
        found[key] = rng.choice([*VALUES, stored, {"quantization_config": stored}])
    except (ValueError, RecursionError, TypeError):
        return "no config"
    path.write_bytes(_dump(found))
    return key


def cut(rng: random.Random, folder: Path) -> str:
    """A file ends early, or is empty."""
    path = _pick(rng, folder)
    if path is None:
        return "no file"
    raw = path.read_bytes()
    path.write_bytes(raw[: rng.choice([0, 1, 7, 8, 9, len(raw) // 2, max(len(raw) - 1, 0), rng.randint(0, len(raw))])])
    return path.name


def longer(rng: random.Random, folder: Path) -> str:
    """A file has more at its end."""
    path = _pick(rng, folder)
    if path is None:
        return "no file"
    path.write_bytes(path.read_bytes() + rng.choice([b"\0", b" ", b"\n", b"}", rng.randbytes(64)]))
    return path.name


def flips(rng: random.Random, folder: Path) -> str:
    """Bits flip anywhere."""
    path = _pick(rng, folder)
    raw = bytearray(path.read_bytes()) if path is not None else bytearray()
    if path is None or not raw:
        return "nothing"
    for _ in range(rng.randint(1, 20)):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)
    return path.name


def replaced(rng: random.Random, folder: Path) -> str:
    """A file is missing, or a folder, a link or a pipe is in its place, or another file's content."""
    path = _pick(rng, folder)
    if path is None:
        return "no file"
    kind = rng.choice(["missing", "folder", "link out", "link to itself", "link inside", "pipe", "other", "renamed"])
    other = _pick(rng, folder)
    assert other is not None
    data = other.read_bytes()
    if kind == "renamed":
        target = folder / rng.choice(["model.safetensors", "x.safetensors", "model.safetensors.index.json", "sub"])
        if not target.exists():
            path.rename(target)
        return f"{path.name} {kind}"
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "link out":
        path.symlink_to(rng.choice(["/etc/hostname", "/dev/zero", "/nowhere", "..", "/"]))
    elif kind == "link to itself":
        path.symlink_to(path.name)
    elif kind == "link inside" and other != path:
        path.symlink_to(other.name)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "other":
        path.write_bytes(data)
    return f"{path.name} {kind}"


def added(rng: random.Random, folder: Path) -> str:
    """Something comes into the folder."""
    source = _pick(rng, folder)
    target = folder / rng.choice(["model.safetensors", "model.safetensors.index.json", "a b\n.json", "x/y.safetensors"])
    if source is None or target.exists() or target.is_symlink() or (folder / "x").is_file():
        return "nothing"
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, target)
    return repr(target.name)


CHANGES: dict[Change, int] = {
    header_text: 5,
    header_json: 5,
    offsets: 3,
    header_length: 2,
    json_text: 4,
    json_value: 4,
    config_key: 3,
    cut: 3,
    longer: 1,
    flips: 2,
    replaced: 2,
    added: 1,
}
"""Every kind of damage and how often it comes."""
