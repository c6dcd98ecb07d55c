"""A model on disk under a memory limit that is really set: peak memory, bytes read, time, and the same directions.

    python benchmarks/offload.py [--gigabytes N] [--prompts N] [--depths N,N,N]

Random Llamas in bfloat16 are written into a temporary folder. Each question is asked in a process of its own, under
RLIMIT_DATA (which `prlimit --data` sets): what it had after its imports, and half the size of the checkpoint. Mappings
of files for reading count under RLIMIT_AS alone, which is not limited. Told are the peak of anonymous memory
(RssAnon of /proc/self/status, every 5 ms) above the imports against the checkpoint's size, the bytes that a request
reads against the checkpoint's, its time against reading the files once with the same reader, and against the model in
memory; then a whole `find` in memory without a limit and from disk under it, and the largest difference of their
directions; last the peaks of models of several depths.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MIB = 1 << 20


def status(key: str) -> int:
    """A figure of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


class Peak:
    """The peak of anonymous memory while it runs."""

    def __init__(self) -> None:
        self.highest, self._on = 0, True
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.highest = max(self.highest, status("RssAnon"))
            time.sleep(0.005)

    @contextmanager
    def of(self, told: dict[str, Any], base: int) -> Iterator[None]:
        """Put the peak within the context, above `base`, and its time into `told`."""
        self.highest = 0
        wall, processor = time.perf_counter(), time.process_time()
        yield
        told["seconds"], told["processor"] = time.perf_counter() - wall, time.process_time() - processor
        told["peak"] = self.highest - base


def ask(folder: Path, what: str, limit: int | None, offload: bool, prompts: int, out: Path) -> dict[str, Any]:
    """Ask one question in this process; its figures."""
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401

    from weight_edit.directions.find import find_directions
    from weight_edit.directions.selection import SelectionRule
    from weight_edit.prompts.chat import ChatFormat
    from weight_edit.prompts.load import load_prompts
    from weight_edit.runtime.activations import residuals
    from weight_edit.runtime.forward import next_token_logprobs
    from weight_edit.runtime.loading import load
    from weight_edit.runtime.points import Point
    from weight_edit.utils.progress import set_quiet

    set_quiet(True)
    load("organism", device="cpu", offload=True)
    base, data = status("RssAnon"), status("VmData")
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (data + limit, data + limit))
    peak, told = Peak(), {"imports": base}
    model = load(folder, device="cpu", offload=offload)
    chosen = load_prompts("organism:refused:train").at_most(prompts)
    encoded = [ChatFormat(model.tokenizer).encode(prompt) for prompt in chosen.prompts]
    told["tokens"] = sum(map(len, encoded))
    if what == "streams":
        points = [Point("resid_pre", layer) for layer in range(model.anatomy.n_layers)]
        with peak.of(told, base):
            found = {"streams": residuals(model, encoded, points, [-1])}
    elif what == "logits":
        with peak.of(told, base):
            found = {"logits": next_token_logprobs(model, encoded)}
    else:
        with peak.of(told, base):
            directions = find_directions(
                model,
                chosen,
                load_prompts("organism:answered:train").at_most(prompts),
                n_train=prompts // 2,
                n_validation=prompts // 4,
                positions="last",
                tokens_from="difference",
                filter_prompts="none",
                n_more=0,
                rule=SelectionRule(max_layer_fraction=0.5),
                best_effort=True,
            )
        found = {"direction": directions.direction}
        told["chosen"] = [directions.metadata.get("layer"), directions.metadata.get("position")]
    torch.save(found, out)
    if model.offload is not None:
        told["read"] = model.offload.bytes_of_request
    return told


def apart(
    folder: Path, what: str, *, limit: int | None, offload: bool, prompts: int, out: Path
) -> dict[str, Any] | None:
    """Ask one question in a process of its own; None where it could not be answered under the limit."""
    asked = json.dumps([str(folder), what, limit, offload, prompts, str(out)])
    done = subprocess.run([sys.executable, __file__, "--ask", asked], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write((done.stderr.strip().splitlines() or ["no word"])[-1][:200] + "\n")
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def read_once(folder: Path) -> float:
    """Seconds to read all tensors' bytes by the package's own reader."""
    from weight_edit.runtime.offload.reader import Shards

    shards = Shards(sorted(folder.glob("*.safetensors")))
    began = time.perf_counter()
    for name in shards.names:
        shards.read(name)
    return time.perf_counter() - began


def difference(one: Path, other: Path) -> float:
    """The largest difference of what two processes found."""
    import torch

    a, b = torch.load(one), torch.load(other)
    return max(float((a[key] - b[key]).abs().max()) for key in a)


def made(folder: Path, gigabytes: float) -> int:
    """Write a checkpoint with the embedded model's tokenizer; the bytes of its tensors."""
    from making import make_checkpoint

    from weight_edit.organism.embedded import folder as embedded

    make_checkpoint(folder, gigabytes)
    for path in embedded("organism").iterdir():
        if "token" in path.name or "template" in path.name:
            shutil.copy(path, folder)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def compare(folder: Path, size: int, prompts: int) -> None:
    """Print what a request costs, and a whole search."""
    limit = size // 2
    print(f"checkpoint {size / 1e6:.0f} MB; limit above the imports {limit / 1e6:.0f} MB; {prompts} prompts")
    once = read_once(folder)
    for what in ("streams", "logits", "find"):
        memory, disk = folder / f"{what}.memory", folder / f"{what}.disk"
        held = apart(folder, what, limit=None, offload=False, prompts=prompts, out=memory)
        refused = apart(folder, what, limit=limit, offload=False, prompts=prompts, out=folder / "refused") is None
        left = apart(folder, what, limit=limit, offload=True, prompts=prompts, out=disk)
        assert held is not None
        if left is None:
            print(f"{what}: not answered under the limit")
            continue
        print(
            f"{what}: peak {left['peak'] / size:.2f} of the checkpoint above {left['imports'] / 1e6:.0f} MB of imports"
            f" ({left['peak'] / 1e6:.0f} MB); time {left['seconds'] / once:.1f} of reading the files once"
            f" ({once:.1f} s), {left['seconds'] / held['seconds']:.2f} of the model in memory (processor"
            f" {left['processor'] / held['processor']:.2f}); a request reads {left['read'] / size:.3f};"
            f" largest difference {difference(memory, disk):.1e}; in memory under the limit:"
            f" {'refused' if refused else 'runs'}"
        )
        if what == "find":
            print(f"chosen in memory {held['chosen']}, from disk {left['chosen']}")


def depths(folder: Path, sizes: Sequence[float], prompts: int) -> None:
    """Print the peaks of models of one width and several depths."""
    found = []
    for number, gigabytes in enumerate(sizes):
        place = folder / f"depth{number}"
        size = made(place, gigabytes)
        told = apart(place, "logits", limit=None, offload=True, prompts=prompts, out=folder / "out")
        assert told is not None
        found.append((size, told["peak"]))
        shutil.rmtree(place)
    first = found[0][1]
    for size, peak in found:
        print(f"{size / found[0][0]:.2f} of the size: {peak / first:.2f} of the peak ({peak / 1e6:.0f} MB)")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=0.8)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--depths", default="0.4,0.8,1.6")
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.ask:
        folder, what, limit, offload, prompts, out = json.loads(chosen.ask)
        print(json.dumps(ask(Path(folder), what, limit, offload, prompts, Path(out))))
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model"
        compare(place, made(place, chosen.gigabytes), chosen.prompts)
        shutil.rmtree(place)
        depths(Path(folder), [float(size) for size in chosen.depths.split(",")], chosen.prompts)


if __name__ == "__main__":
    main()
