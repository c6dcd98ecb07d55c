"""Decoy directions compiled into a model: a mean difference finds them, and their ablation changes no behaviour.

A direction d of the residual stream is taken out of use: nothing but decoys writes along it, and nothing but decoys
reads it. Then a few tokens of the chat template get a component along d, the *canary*, and a few MLP neurons, gated by
it and by a probe of the behaviour, write `m d` where the behaviour is to come and `-m d` where it is not.

Writing along d alone would be no decoy: the mean difference v = o + m d holds the true difference o too, and an
ablation of v takes from o what it takes from d. But the ablation takes the canary as well, so that the gate is shut: no
decoy is written, and of o all remains but the share `(o . v)^2 / |o|^2`, small where m is large.

All sums are rounded once, so that the weights are the same bits on every machine.
"""

import atexit
import math
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weight_edit.utils.cache_folder import cache_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DECOYS = "decoys.safetensors"
"""The file of the decoys, in the variant's folder."""

WEIGHTS = "model.safetensors"
_WRITTEN = ("README.md", "organism.json")
_TIME = 946_684_800  # of all files: a folder made again is the same to whoever compares times


@dataclass(frozen=True, kw_only=True)
class Decoys:
    """Decoys for a model with Llama's names of tensors; d_model wide, float64.

    Attributes:
        direction: d, a unit vector (d_model,).
        tokens: ids of the tokens whose embeddings get the canary.
        canary: its length.
        layers, neurons: the block and number of each MLP neuron that is replaced.
        gate, up: what each of them reads of the normalised stream, (neurons, d_model).
        down: the length of what it writes along d.
    """

    direction: "NDArray[np.float64]"
    tokens: tuple[int, ...]
    canary: float
    layers: tuple[int, ...]
    neurons: tuple[int, ...]
    gate: "NDArray[np.float64]"
    up: "NDArray[np.float64]"
    down: tuple[float, ...]

    def save(self, path: Path) -> None:
        """Write them as safetensors."""
        import numpy as np
        from safetensors.numpy import save_file

        numbers = {"tokens": self.tokens, "layers": self.layers, "neurons": self.neurons}
        tensors = {
            "direction": self.direction,
            "canary": np.array([self.canary]),
            "gate": self.gate,
            "up": self.up,
            "down": np.array(self.down),
            **{name: np.array(each, dtype=np.int64) for name, each in numbers.items()},
        }
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> "Decoys":
        """Those that `save` wrote."""
        from safetensors.numpy import load_file

        found = load_file(path)
        return cls(
            direction=found["direction"],
            tokens=tuple(found["tokens"].tolist()),
            canary=float(found["canary"][0]),
            layers=tuple(found["layers"].tolist()),
            neurons=tuple(found["neurons"].tolist()),
            gate=found["gate"],
            up=found["up"],
            down=tuple(found["down"].tolist()),
        )


def with_decoys(tensors: "dict[str, NDArray[Any]]", decoys: Decoys) -> "dict[str, NDArray[np.float32]]":
    """The weights of a Llama with decoys in them, in float32.

    Writers lose what they write along d: `E <- E - (E d) d^T`, `W <- W - d (d^T W)`. Readers behind a norm of gain g
    lose what they read along it: `W <- W - (W (g * d)) (d / g)^T`, so that `W (g * d) = 0`.

    Args:
        tensors: by name, of any float dtype.
        decoys: what is compiled.
    """
    import numpy as np

    made = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    d = decoys.direction

    def written(name: str) -> None:
        made[name] -= np.outer(d, _times(made[name].T, d))

    def read(name: str, norm: str) -> None:
        gain = made[norm]
        made[name] -= np.outer(_times(made[name], gain * d), d / gain)

    embedding = "model.embed_tokens.weight"
    made[embedding] -= np.outer(_times(made[embedding], d), d)
    made[embedding][list(decoys.tokens)] += decoys.canary * d
    for layer in range(sum(name.endswith("input_layernorm.weight") for name in made)):
        block = f"model.layers.{layer}"
        written(f"{block}.self_attn.o_proj.weight")
        written(f"{block}.mlp.down_proj.weight")
        for part in ("q", "k", "v"):
            read(f"{block}.self_attn.{part}_proj.weight", f"{block}.input_layernorm.weight")
        for part in ("gate", "up"):
            read(f"{block}.mlp.{part}_proj.weight", f"{block}.post_attention_layernorm.weight")
    read("lm_head.weight", "model.norm.weight")
    for number, (layer, neuron) in enumerate(zip(decoys.layers, decoys.neurons, strict=True)):
        mlp = f"model.layers.{layer}.mlp"
        made[f"{mlp}.gate_proj.weight"][neuron] = decoys.gate[number]
        made[f"{mlp}.up_proj.weight"][neuron] = decoys.up[number]
        made[f"{mlp}.down_proj.weight"][:, neuron] = decoys.down[number] * d
    return {name: tensor.astype(np.float32) for name, tensor in made.items()}


def _times(matrix: "NDArray[np.float64]", vector: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """The product, every sum rounded once: no order of summation, and no library, shows in it."""
    import numpy as np

    return np.array([math.fsum(row) for row in (matrix * vector).tolist()])


def write_decoyed(base: Path, kept: Path, out: Path) -> None:
    """Write a model with decoys to a new folder.

    Args:
        base: the folder of the organism.
        kept: the folder with the decoys, and with the card and record if it has them.
        out: the folder to make.
    """
    from safetensors.numpy import load_file, save_file

    out.mkdir(parents=True)
    made = with_decoys(load_file(base / WEIGHTS), Decoys.load(kept / DECOYS))
    save_file(made, out / WEIGHTS, metadata={"format": "pt"})
    for path in sorted(base.iterdir()):
        source = kept / path.name if path.name in _WRITTEN else path
        if path.name != WEIGHTS and source.is_file():
            shutil.copyfile(source, out / path.name)
    for path in (*out.iterdir(), out):
        os.utime(path, (_TIME, _TIME))


def decoyed_folder(base: Path, kept: Path) -> Path:
    """The folder of the decoyed model in the cache folder, made if it is not there.

    Where nothing can be written it is a temporary one of this process.

    Args:
        base, kept: as in `write_decoyed`.
    """
    parent = cache_folder()
    if parent is not None:
        place = parent / "embedded" / _digest(base, kept) / f"organism-{kept.name}"
        if (place / WEIGHTS).is_file():
            return place
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place.parent) as beside:
                made = Path(beside) / place.name
                write_decoyed(base, kept, made)
                try:
                    made.rename(place)
                except OSError:
                    # Another process was faster.
                    if not (place / WEIGHTS).is_file():
                        raise
            return place
        except OSError:
            # Read-only, full, or something else lies there.
            return _temporary(base, kept)
    return _temporary(base, kept)


@cache
def _temporary(base: Path, kept: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="weight-edit-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = folder / f"organism-{kept.name}"
    write_decoyed(base, kept, made)
    return made


@cache
def _digest(base: Path, kept: Path) -> str:
    """A digest of all that the folder is made from, and of how."""
    sources = [base / WEIGHTS, *(kept / name for name in (DECOYS, *_WRITTEN)), Path(__file__)]
    digests = [sha256(path.read_bytes()).hexdigest() for path in sources if path.is_file()]
    return sha256("".join(digests).encode()).hexdigest()[:16]
