"""Hostile inputs and forged outputs, each made again from its seed, and what must be so after them.

An input (config, tokenizer, chat template, prompts, recipe, directions, manifest) is used, or refused in one plain line
of a `WeightEditError`, in bounded time. An output whose bytes or words were changed after it was baked, with digests
made true again, does not pass `verify`.
"""

import copy
import hashlib
import json
import os
import random
import re
import shutil
import struct
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from safetensors.numpy import save_file
from transformers import AutoTokenizer

from tests.helpers.mutations import PIECES, VALUES, time_limit
from weight_edit import bake
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.directions.file import KEY, read_rows
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.errors import WeightEditError
from weight_edit.organism.embedded import folder as embedded
from weight_edit.plan.step import EditStep
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.recipe.recipe import load_recipe
from weight_edit.runtime.forward import next_token_logprobs
from weight_edit.runtime.generation import generate
from weight_edit.runtime.loading import load
from weight_edit.verification.verify import verify

SECONDS = 60.0
MANIFEST = "weight_edit.json"
HOSTILE: list[Any] = [
    *VALUES,
    "a\nb",
    "a | b\n# c",
    "\x00",
    "NaN",
    10**400,
    -5,
    2**70,
    1e308,
    float("inf"),
    [10**30],
    {"": None},
    [[[[0]]]],
]


class Wrong(AssertionError):
    """An input was not treated as it should be; the message says which and how."""


class PassedWrongly(Wrong):
    """A forged output passed."""


class Sample:
    """The embedded model, directions, and an honest edit of it, which every case begins from."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.base = Path(embedded("organism"))
        self.config = json.loads((self.base / "config.json").read_text())
        self.width = int(self.config["hidden_size"])
        generator = np.random.default_rng(0)
        self.rows = np.ascontiguousarray(np.linalg.qr(generator.standard_normal((self.width, 2)))[0].T, np.float32)
        self.facts = {"method": "mean-difference", "layer": 3, "position": -1, "prompts": {"target": {"name": "x"}}}
        self.directions = root / "direction.safetensors"
        save_file({"direction": self.rows[:1]}, self.directions, metadata={KEY: json.dumps(self.facts)})
        self.honest = root / "honest"
        bake(self.base, self.directions, self.honest)
        self.other = root / "other"
        second = EditStep(directions=DirectionRows(self.rows[1:], {}), kind="ablate")
        bake(self.base, [EditStep(directions=read_rows(self.directions)), second], self.other)


Case = Callable[[Sample, random.Random, Path], tuple[str, Callable[[], object]]]
"""Prepares a case in a folder: what it is, and the call that must use or refuse it."""


def treat(sample: Sample, root: Path, seed: int, seconds: float = SECONDS) -> str:
    """Prepare and try one case; the kind and what came of it.

    Args:
        root: an empty folder.

    Raises:
        Wrong: a traceback, a message that is not one plain line, too long a time.
        PassedWrongly: a forged output that verify passes.
    """
    rng = random.Random(seed)
    kind = list(CASES)[seed % len(CASES)]
    said, work = CASES[kind](sample, rng, root)
    what = f"seed {seed}, {kind}: {said[:300]}"
    before, tempfile.tempdir = tempfile.tempdir, str(root)
    began = time.monotonic()
    try:
        with warnings.catch_warnings(), time_limit(seconds):
            warnings.simplefilter("ignore")
            result = work()
    except WeightEditError as error:
        message = str(error)
        # What stops it may have been taken for a fault of the input's.
        if time.monotonic() - began > seconds:
            raise Wrong(f"{what}: took too long and ended with {message!r}") from error
        if len(message.splitlines()) != 1:
            raise Wrong(f"{what}: not one line: {message!r}") from error
        return f"{kind} refused"
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        raise Wrong(f"{what}: {error!r}"[:1500]) from error
    finally:
        tempfile.tempdir = before
    if kind in FORGED and result is not None:
        raise PassedWrongly(f"{what}: passed")
    return f"{kind} {'found out' if kind in FORGED else 'used'}"


# Inputs.


def _altered(rng: random.Random, value: Any) -> tuple[Any, str]:
    """A JSON value with one entry at a random place replaced, taken out or doubled."""
    value = copy.deepcopy(value)
    places: list[tuple[Any, Any, str]] = []
    stack = [(value, "")]
    while stack:
        entry, path = stack.pop()
        keys = list(entry) if isinstance(entry, dict) else range(len(entry)) if isinstance(entry, list) else ()
        for key in keys:
            places.append((entry, key, f"{path}/{key}"))
            stack.append((entry[key], f"{path}/{key}"))
    # Large tables (a vocabulary) would take all the draws.
    near = places[:200] if rng.random() < 0.8 else places
    if not near:
        return value, "nothing"
    entry, key, path = rng.choice(near)
    if rng.random() < 0.2:
        del entry[key]
        return value, f"{path} taken out"
    entry[key] = rng.choice(HOSTILE)
    return value, f"{path} = {str(entry[key])[:60]!r}"


def _dumped(rng: random.Random, value: Any) -> bytes:
    text = json.dumps(value)
    raw = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:
        at = rng.randint(0, min(len(raw), 2000))
        raw = raw[:at] + rng.choice(PIECES) + raw[at + rng.choice([0, 1, 5]) :]
    return raw


def _copied(sample: Sample, root: Path) -> Path:
    return Path(shutil.copytree(sample.base, root / "model"))


def _spoken(folder: Path) -> object:
    """A model loaded and used as `find` and `evaluate` do."""
    model = load(folder)
    tokens = [ChatFormat(model.tokenizer, template=None).encode("How do I bake bread?")]
    next_token_logprobs(model, tokens, description=None)
    return generate(model, tokens, max_new_tokens=2, description=None)


def _config(sample: Sample, rng: random.Random, root: Path) -> tuple[str, Callable[[], object]]:
    folder = _copied(sample, root)
    changed, said = _altered(rng, sample.config)
    (folder / "config.json").write_bytes(_dumped(rng, changed))
    if rng.random() < 0.5:
        return said, lambda: bake(folder, sample.directions, root / "out")
    return said, lambda: _spoken(folder)


def _tokenizer(sample: Sample, rng: random.Random, root: Path) -> tuple[str, Callable[[], object]]:
    folder = _copied(sample, root)
    name = rng.choice(["tokenizer.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
    content = json.loads((folder / name).read_text())
    if name == "tokenizer.json" and rng.random() < 0.5:
        vocabulary = content["model"]["vocab"]
        token = rng.choice(list(vocabulary)) if isinstance(vocabulary, dict) else None
        wrong = rng.choice([-1, 2**31, 2**33, 10**6, len(vocabulary) + 5, 1.5, "x", None])
        if token is not None:
            vocabulary[token] = wrong
        if content.get("added_tokens"):
            rng.choice(content["added_tokens"])["id"] = wrong
        said = f"{name}: id {wrong!r}"
    else:
        content, said = _altered(rng, content)
        said = f"{name}: {said}"
    (folder / name).write_bytes(_dumped(rng, content))
    return said, lambda: _spoken(folder)


_LOOPS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{{ lipsum(n=10**9) }}",
    "{% macro a() %}{{ a() }}{{ a() }}{% endmacro %}{{ a() }}",
]
_BLOCKS = [
    "{{ 'a' * 10**11 }}",
    "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{{ '%1000000000000d' % 1 }}",
    "{{ 'a'.center(10**12) }}",
    "{{ raise_exception('no\nsuch | thing') }}",
    "{{ messages[99].content }}",
    "{{ messages[0].content.__class__ }}",
    "{% for m in messages %}{{ m.content }}{% endfor %}",
    "{{ messages }}",
    "{{ messages[0].content[0].text }}",
    "{{ eos_token }}{{ bos_token }}",
    "{{ 1 // 0 }}",
    "{{ 9**9**9 }}",
    "{{ '\\ud800' }}",
    "{{ '\\x00' }}",
    "{% if",
    "{{ '" + "(" * 3000 + "' }}",
    "{{ " + "(" * 3000 + " }}",
    "{{ strftime_now('%Y' * 10000) }}",
    "{{ messages | tojson(indent=10**9) }}",
    "{% generation %}{{ messages[0].content }}{% endgeneration %}",
    "{% include 'config.json' %}",
    "{% import '/etc/passwd' as x %}",
    "",
]


def _template(sample: Sample, rng: random.Random, root: Path) -> tuple[str, Callable[[], object]]:
    folder = _copied(sample, root)
    # A loop takes its whole limit; the rest takes none of it.
    parts = [rng.choice(_BLOCKS) for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.06:
        parts.append(rng.choice(_LOOPS))
    own = (folder / "chat_template.jinja").read_text()
    text = "".join(parts) + (own if rng.random() < 0.5 else "")
    (folder / "chat_template.jinja").write_text(text)
    return repr(text), lambda: _encoded(folder)


def _encoded(folder: Path) -> object:
    form = ChatFormat(AutoTokenizer.from_pretrained(folder))
    return form.encode("How?"), form.suffix, form.end_of_turn, form.answer_tokens("So.")


def _spliced(rng: random.Random, raw: bytes) -> bytes:
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, min(len(raw), 3000))
        raw = raw[:at] + rng.choice([rng.choice(PIECES), rng.randbytes(3)]) + raw[at + rng.choice([0, 1, 4, 30]) :]
    return raw


def _special(rng: random.Random, path: Path) -> str | None:
    """Sometimes, something else than a file."""
    drawn = rng.random()
    if drawn < 0.04:
        os.mkfifo(path)
    elif drawn < 0.08:
        path.symlink_to(rng.choice(["/dev/zero", "/dev/stdin", "/dev/tty", "/proc/self/mem", path.name, "/"]))
    elif drawn < 0.1:
        path.mkdir()
    elif drawn < 0.12:
        with path.open("wb") as file:
            file.truncate(1 << 42)
    else:
        return None
    return "no plain file"


def _prompts(sample: Sample, rng: random.Random, root: Path) -> tuple[str, Callable[[], object]]:
    ending = rng.choice(["txt", "jsonl", "json", "csv", "parquet"])
    path = root / f"prompts.{ending}"
    said = _special(rng, path)
    if said is None:
        rows: list[Any] = [{"prompt": f"Question {n}?", "answer": "So.", "id": n} for n in range(4)]
        for row in rows:
            if rng.random() < 0.3:
                row[rng.choice(["prompt", "answer", "id", "category"])] = rng.choice(HOSTILE)
        if ending == "parquet":
            raw = _parquet(rng)
        elif ending == "json":
            shapes = (rows, {"prompts": rows}, {"prompt": [row.get("prompt") for row in rows]})
            raw = _dumped(rng, rng.choice(shapes))
        elif ending == "jsonl":
            raw = b"\n".join(_dumped(rng, row) for row in rows)
        else:
            raw = b'prompt,answer\nWhat is it?,So.\n"Who, me?",No.\n'
        path.write_bytes(_spliced(rng, raw) if rng.random() < 0.6 else raw)
        said = repr(path.read_bytes()[:120])
    return f"{ending} {said}", lambda: load_prompts(str(path))


def _parquet(rng: random.Random) -> bytes:
    texts = pyarrow.array(["What is it?", "Who?", "Where?"])
    third = rng.choice(
        [
            pyarrow.array([2**50, -(2**50), 0], pyarrow.timestamp("s")),
            pyarrow.array([2**31 - 1, -(2**31), 0], pyarrow.date32()),
            pyarrow.array([2**62, 0, None], pyarrow.date64()),
            pyarrow.array([2**62, 0, None], pyarrow.duration("s")),
            pyarrow.array([b"\xff", b"", None]),
            pyarrow.array([1, 2, 3]),
        ]
    )
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"prompt": texts, "third": third}), sink)
    return bytes(sink.getvalue().to_pybytes())


_RECIPE = """\
title: A recipe
model: organism
seed: 0
prompts: {refused: "organism:refused:train", answered: "organism:answered:train"}
find: {method: mean-difference, target: "@refused", baseline: "@answered", n_train: 8, options: {}}
edit: {kind: ablate, strength: 1.0, layers: 0-3, then: [{kind: add, at: [2]}]}
evaluate: {refused: "organism:refused:test", limit: 4}
bounds: {max_kl: 1.0}
"""
_YAML = [
    "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)),
    "a: &a {x: 1}\n"
    + "".join(f"{chr(98 + n)}: &{chr(98 + n)} {{<<: [{','.join(['*' + chr(97 + n)] * 9)}]}}\n" for n in range(9)),
    "find: &a [*a]\n",
    "seed: " + "9" * 5000 + "\n",
    "seed: 1180591620717411303424\n",
    "seed: -1\n",
    'title: "\\ud800"\n',
    'model: "a\\0b"\n',
    "title: 2020-99-99\n",
    "title: !!python/object/apply:os.system [ls]\n",
    "title: !!binary aGk=\n",
    "? [1]\n: 2\n",
    "1: 2\n",
    "finds: {a b: {target: x, baseline: y}, a-b: {target: x, baseline: y}}\n",
    "prompts: 5\n",
    "studies: [{kind: sweep, options: {x: .inf}}]\n",
    "[" * 3000,
    "edit: {strength: .nan}\n",
]


def _recipe(sample: Sample, rng: random.Random, root: Path) -> tuple[str, Callable[[], object]]:
    path = root / "recipe.yaml"
    said = _special(rng, path)
    overrides: list[str] = []
    if said is None:
        text = (_RECIPE if rng.random() < 0.7 else "") + (rng.choice(_YAML) if rng.random() < 0.6 else "")
        raw = text.encode()
        if rng.random() < 0.5:
            raw = _spliced(rng, raw)
        path.write_bytes(raw)
        if rng.random() < 0.4:
            key = rng.choice(
                ["seed", "edit.strength", "find.n_train", "edit.then.0.at", "prompts.refused", "x", "a.b.c"]
            )
            value = rng.choice(HOSTILE)
            overrides = [f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
        said = f"{raw[-150:]!r} {overrides}"
    return said, lambda: load_recipe(path, overrides)


def _directions(sample: Sample, rng: random.Random, root: Path) -> tuple[str, Callable[[], object]]:
    path = root / "direction.safetensors"
    said = _special(rng, path)
    if said is None:
        raw = sample.directions.read_bytes()
        length = struct.unpack("<Q", raw[:8])[0]
        header = json.loads(raw[8 : 8 + length])
        if rng.random() < 0.7:
            facts = copy.deepcopy(sample.facts)
            key = rng.choice([*facts, "revision", "model", "x"])
            facts[key] = rng.choice(HOSTILE)
            text = json.dumps(facts)
            if rng.random() < 0.3:
                text = text.replace("-1", rng.choice(["NaN", "Infinity", "1e999", "9" * 5000, '"\\ud800"', "[" * 500]))
            header["__metadata__"] = {KEY: text}
            said = text
        else:
            header, said = _altered(rng, header)
        body = json.dumps(header).encode()
        numbers = bytearray(raw[8 + length :])
        if rng.random() < 0.2:
            at = 4 * rng.randrange(len(numbers) // 4)
            numbers[at : at + 4] = struct.pack("<f", rng.choice([float("nan"), float("inf"), 0.0, 3e38]))
        path.write_bytes(len(body).to_bytes(8, "little") + body + bytes(numbers))
    return said, lambda: _baked_well(sample, path, root / "out")


def _baked_well(sample: Sample, directions: Path, out: Path) -> object:
    try:
        bake(sample.base, read_rows(directions, orthonormalize=True), out)
    except WeightEditError:
        if out.exists() or list(out.parent.glob(f".{out.name}*")):
            raise Wrong(f"something was left of {out}") from None
        raise
    found = verify(sample.base, out, weights_only=True)
    if not found.passed:
        raise Wrong(f"an edit was baked that does not verify: {found.problems}")
    return out


# Outputs.


def _output(sample: Sample, root: Path, of: Path | None = None) -> tuple[Path, dict[str, Any]]:
    out = Path(shutil.copytree(of or sample.honest, root / "out"))
    return out, json.loads((out / MANIFEST).read_text())


def _sealed(out: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest with the digests that its files have now."""
    for name in list(manifest["files"]):
        path = out / name
        if not path.is_file():
            del manifest["files"][name]
            continue
        raw = path.read_bytes()
        manifest["files"][name] |= {"sha256": hashlib.sha256(raw).hexdigest(), "size": len(raw)}
    (out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _judged(sample: Sample, out: Path, directions: Path | None = None) -> object:
    """None where verify does not pass it."""
    found = verify(sample.base, out, weights_only=True, directions=directions)
    return out if found.passed else None


_FREE = re.compile(
    r"/(weight_edit|measurements|source/(model|revision|on_hub)|edit/steps/0/directions/(method|layer|position|prompts))\b"
)


def _manifest(sample: Sample, rng: random.Random, root: Path) -> tuple[str, Callable[[], object]]:
    out, manifest = _output(sample, root)
    changed, said = _altered(rng, manifest)
    raw = _dumped(rng, changed)
    (out / MANIFEST).write_bytes(raw)
    try:
        same = json.loads(raw) == manifest
    except (ValueError, RecursionError):
        same = False
    # Who wrote it, what it was made from and how directions were found are words that nothing here can check.
    free = same or _FREE.match(said) is not None
    return said, lambda: None if _judged(sample, out) is None or free else out


def _tensors(out: Path) -> tuple[Path, Checkpoint]:
    checkpoint = Checkpoint.open(out)
    return out / checkpoint.shards[0], checkpoint


def _moved(sample: Sample, rng: random.Random, root: Path) -> tuple[str, Callable[[], object]]:
    """Edited numbers moved by one unit in the last place."""
    out, manifest = _output(sample, root)
    path, checkpoint = _tensors(out)
    raw = bytearray(path.read_bytes())
    share = rng.choice([0.1, 0.5, 1.0])
    generator = np.random.default_rng(rng.randrange(2**32))
    for name in manifest["tensors"]:
        info = checkpoint.tensors[name]
        kind = np.dtype("<u2" if info.dtype in ("BF16", "F16") else "<u4")
        bits = np.frombuffer(raw, kind, (info.end - info.begin) // kind.itemsize, info.begin).copy()
        chosen = generator.random(bits.size) < share
        step = generator.choice([1, -1], bits.size) if rng.random() < 0.5 else 1
        bits[chosen] = (bits + np.asarray(step).astype(kind))[chosen]
        raw[info.begin : info.end] = bits.tobytes()
    path.write_bytes(raw)
    _sealed(out, manifest)
    return f"{share} of the edited numbers", lambda: _judged(sample, out)


def _second_step(sample: Sample, rng: random.Random, root: Path) -> tuple[str, Callable[[], object]]:
    """The weights of an edit of two steps, for who knows of one."""
    out, _ = _output(sample, root, sample.other)
    drawn = rng.random()
    if drawn < 0.3:
        (out / MANIFEST).unlink()
        return "no manifest", lambda: _judged(sample, out, sample.directions)
    if drawn < 0.6:
        return "it is told, but not to who gives directions", lambda: _judged(sample, out, sample.directions)
    for name in (MANIFEST, "README.md"):
        shutil.copy(sample.honest / name, out / name)
    _sealed(out, json.loads((out / MANIFEST).read_text()))
    given = sample.directions if rng.random() < 0.5 else None
    return "the words of one step", lambda: _judged(sample, out, given)


def _words(sample: Sample, rng: random.Random, root: Path) -> tuple[str, Callable[[], object]]:
    """A manifest or card that says something else than what was done."""
    out, manifest = _output(sample, root)
    edit, card = manifest["edit"], out / "README.md"
    deeds: dict[str, Callable[[], object]] = {
        "class": lambda: edit.update({"class": "exact in weights and blessed"}),
        "complete": lambda: edit.update(complete=not edit["complete"]),
        "tensors": lambda: manifest.update(tensors=manifest["tensors"][1:]),
        "more tensors": lambda: manifest.update(tensors=[*manifest["tensors"], "model.norm.weight"]),
        "measurements": lambda: manifest.update(
            measurements={"verification": {"passed": True, "complete": not edit["complete"]}}
        ),
        "measured failure": lambda: manifest.update(measurements={"verification": {"passed": False, "leak": 0.5}}),
        "strength": lambda: edit["steps"][0].update(strength=rng.choice([1e-9, 0.5, 1.5])),
        "layers": lambda: edit["steps"][0].update(layers=[0]),
        "kind": lambda: edit["steps"][0].update(edit="norm-preserving"),
        "no step": lambda: edit.update(steps=[]),
        "twice": lambda: edit.update(steps=edit["steps"] * 2, embeddings="skip"),
        "no card": card.unlink,
        "another card": lambda: card.write_text("---\nlicense: mit\n---\n# The base, unchanged\n"),
        "a line in the card": lambda: card.write_text(card.read_text() + "\nRefusals: 0 of 1,000.\n"),
        "architecture": lambda: manifest["source"].update(architecture="GemmaForCausalLM"),
        "unknown": lambda: manifest.update(tensors_unknown=["model.mtp.0.weight"]),
        "added": lambda: manifest.update(tensors_added=["lm_head.weight"]),
        "config": lambda: manifest.update(config_changed=["tie_word_embeddings"]),
        "failed": lambda: manifest.update(failed=["it does not work"]),
    }
    said = rng.choice(list(deeds))
    deeds[said]()
    _sealed(out, manifest)
    return said, lambda: _judged(sample, out)


def _bytes(sample: Sample, rng: random.Random, root: Path) -> tuple[str, Callable[[], object]]:
    """Tensors swapped, taken from the base, or changed where nothing was edited; files changed, added, removed."""
    out, manifest = _output(sample, root)
    path, checkpoint = _tensors(out)
    raw, base = bytearray(path.read_bytes()), Checkpoint.open(sample.base)
    source = (sample.base / base.shards[0]).read_bytes()
    edited = [checkpoint.tensors[name] for name in manifest["tensors"]]
    untouched = [info for name, info in checkpoint.tensors.items() if name not in manifest["tensors"]]
    said = rng.choice(["swapped", "unedited", "flipped", "nan", "config", "file", "gone", "part"])
    one = rng.choice(edited)
    if said == "swapped":
        pairs = [(a, b) for a in edited for b in edited if a.name < b.name and a.shape == b.shape]
        one, two = rng.choice(pairs)
        first, second = bytes(raw[one.begin : one.end]), bytes(raw[two.begin : two.end])
        raw[one.begin : one.end], raw[two.begin : two.end] = second, first
    elif said == "unedited":
        theirs = base.tensors[one.name]
        raw[one.begin : one.end] = source[theirs.begin : theirs.end]
    elif said == "part":
        theirs = base.tensors[one.name]
        half = (one.end - one.begin) // 8 * 4
        raw[one.begin : one.begin + half] = source[theirs.begin : theirs.begin + half]
    elif said == "flipped":
        info = rng.choice(untouched)
        raw[rng.randrange(info.begin, info.end)] ^= 1 << rng.randrange(8)
    elif said == "nan":
        raw[one.begin : one.begin + 4] = b"\xff\xff\xff\xff"
    elif said == "config":
        config = json.loads((out / "config.json").read_text()) | {"rms_norm_eps": 0.1}
        (out / "config.json").write_text(json.dumps(config))
    elif said == "file":
        (out / rng.choice(["notes.txt", "model-2.safetensors", "modeling.py"])).write_text("x")
    else:
        (out / rng.choice(["tokenizer.json", "generation_config.json", "chat_template.jinja"])).unlink()
    path.write_bytes(raw)
    _sealed(out, manifest)
    return f"{said} {one.name}", lambda: _judged(sample, out)


CASES: dict[str, Case] = {
    "config": _config,
    "tokenizer": _tokenizer,
    "template": _template,
    "prompts": _prompts,
    "recipe": _recipe,
    "directions": _directions,
    "manifest": _manifest,
    "moved": _moved,
    "second step": _second_step,
    "words": _words,
    "bytes": _bytes,
}
"""By the seed's remainder."""

FORGED = frozenset({"manifest", "moved", "second step", "words", "bytes"})
