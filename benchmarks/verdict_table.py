"""The confusion table of `diff --verdict`: what other tools' formulas and innocent changes are taken for.

    PYTHONPATH=. python benchmarks/verdict_table.py NAME=FOLDER ... [--only CASE,...] [--blocks 8]

Each model is a folder with one `model.safetensors` whose writers are called as in Llama. Its first blocks are compared,
with a part of the vocabulary, so that a case takes seconds; fine-tunes are those of the whole model. In the second form
both sides are what 4-bit rounding makes of them and of their edit. One JSON line a case.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.helpers import other_tools as tools
from weight_edit.baking.bake import bake
from weight_edit.difference.diff import diff
from weight_edit.directions.directions import Directions
from weight_edit.errors import WeightEditError

TEXTS = (
    "The river rises in the hills and runs for two hundred miles to the sea.",
    "To make bread, mix flour, water, salt and yeast, and let the dough rest for an hour.",
    "In 1869 the periodic table listed sixty-three elements in the order of their weights.",
    "I'm sorry, but I can't help with that. Here is a number of people who can.",
)
ROWS = 8192
"""Rows of the vocabulary that are kept."""


def cut(tensors: tools.Tensors, blocks: int) -> tools.Tensors:
    """The first blocks, and a part of the vocabulary."""
    kept = {}
    for name, tensor in tensors.items():
        found = tools._LAYER.search(name)
        if found is None or int(found.group(1)) < blocks:
            kept[name] = tensor[:ROWS].clone() if tensor.ndim == 2 and tensor.shape[0] > ROWS else tensor
    return kept


def save(folder: Path, tensors: tools.Tensors, source: Path, blocks: int) -> Path:
    """A model's folder, with a config to match."""
    folder.mkdir()
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["num_hidden_layers"] = blocks
    config["vocab_size"] = min(ROWS, config["vocab_size"])
    if isinstance(config.get("layer_types"), list):
        config["layer_types"] = config["layer_types"][:blocks]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors")
    return folder


def tuned(source: Path, how: str, steps: int = 4) -> tools.Tensors:
    """A few steps of training of the whole model, at ordinary rates."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source)
    trained = model
    if how == "lora":
        from peft import LoraConfig, get_peft_model

        targets = ["q_proj", "v_proj", "o_proj", "down_proj"]
        trained = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=targets))
    rate = {"lora": 2e-4, "sgd": 1e-2, "adam": 2e-5, "preference": 5e-6, "other": 5e-5}[how]
    parameters = [p for p in trained.parameters() if p.requires_grad]
    kind = torch.optim.SGD if how == "sgd" else torch.optim.AdamW
    optimiser = kind(parameters, lr=rate)
    order = TEXTS[::-1] if how == "other" else TEXTS
    for step in range(steps):
        ids = [tokenizer(order[(step + n) % len(order)], return_tensors="pt").input_ids for n in range(2)]
        losses = [trained(input_ids=each, labels=each).loss for each in ids]
        # Chosen above rejected, as preferences are learnt.
        loss = -torch.nn.functional.logsigmoid(losses[1] - losses[0]) if how == "preference" else losses[0]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    if how == "lora":
        model = trained.merge_and_unload()
    stored = load_file(source / "model.safetensors")
    state = model.state_dict()
    return {name: state[name].detach().to(t.dtype) if name in state else t for name, t in stored.items()}


def cases(t: tools.Tensors, source: Path, blocks: int) -> dict[str, Callable[[], tools.Tensors]]:
    """Name -> the changed model. Names begin with what it is: edit, innocent or both."""
    d, n = tools.width_of(t), tools.layers_of(t)
    v = tools.unit(d, 1)
    each = torch.stack([v + 0.5 * tools.unit(d, 10 + layer) for layer in range(n)])
    each /= each.norm(dim=1, keepdim=True)
    right = v + 0.7 * tools.unit(d, 5)
    right /= right @ v
    many = torch.linalg.qr(torch.randn(d, 24, generator=torch.Generator().manual_seed(3), dtype=torch.float64))[0].T

    def trained(how: str) -> tools.Tensors:
        return cut(tuned(source, how), blocks)

    def merged() -> tools.Tensors:
        one, other = trained("adam"), trained("other")
        return {name: (0.5 * one[name].float() + 0.5 * other[name].float()).to(one[name].dtype) for name in one}

    return {
        "edit: orthogonalised, embedding too": lambda: tools.orthogonalised(t, v),
        "edit: ablation of writers": lambda: tools.ablated(t, v),
        "edit: ablation of some layers": lambda: tools.ablated(t, v, 1.0, range(n // 3, n)),
        "edit: partial, .6": lambda: tools.ablated(t, v, 0.6),
        "edit: partial, .15": lambda: tools.ablated(t, v, 0.15),
        "edit: reflection": lambda: tools.ablated(t, v, 2.0),
        "edit: heretic, one direction": lambda: tools.heretic(t, v),
        "edit: heretic, by layer": lambda: tools.heretic(t, each),
        "edit: heretic, unit rows": lambda: tools.heretic(t, v, "pre"),
        "edit: heretic, row norms": lambda: tools.heretic(t, v, "full"),
        "edit: row norms kept": lambda: tools.rows_kept(t, v),
        "edit: vector norms kept": lambda: tools.columns_kept(t, each),
        "edit: wrong side": lambda: tools.read_side(t, v),
        "edit: eraser": lambda: tools.erased(t, v, right),
        "edit: two ablations in a row (kept apart)": lambda: tools.ablated(tools.ablated(t, v), each[0]),
        "edit: nullspace of 24": lambda: tools.ablated(t, many),
        "edit: addition as a bias": lambda: tools.added_as_bias(t, v, n // 2),
        "edit: addition to the embedding": lambda: tools.added_to_embedding(t, 0.1 * v),
        "innocent: fine-tune, Adam": lambda: trained("adam"),
        "innocent: fine-tune, SGD": lambda: trained("sgd"),
        "innocent: preferences": lambda: trained("preference"),
        "innocent: LoRA trained": lambda: trained("lora"),
        "innocent: LoRA random": lambda: tools.low_rank(t, 16),
        "innocent: merge of fine-tunes": merged,
        "innocent: noise": lambda: tools.noisy(t),
        "innocent: int8": lambda: tools.each_matrix(t, tools.int8_rows),
        "innocent: NF4": lambda: tools.each_matrix(t, tools.nf4_blocks),
        "innocent: FP8": lambda: tools.each_matrix(t, tools.fp8_tensor),
        "innocent: 4 bits, affine": lambda: tools.each_matrix(t, tools.int4_affine),
        "innocent: float16": lambda: {name: x.half() for name, x in t.items()},
        "innocent: pruned": lambda: tools.each_matrix(t, tools.pruned),
        "innocent: decayed": lambda: tools.each_matrix(t, lambda w: w * 0.98),
        "innocent: same": lambda: dict(t),
        "both: ablation, then int8": lambda: tools.each_matrix(tools.ablated(t, v), tools.int8_rows),
        "both: ablation, then NF4": lambda: tools.each_matrix(tools.ablated(t, v), tools.nf4_blocks),
        "both: heretic, then 4 bits": lambda: tools.each_matrix(tools.heretic(t, each), tools.int4_affine),
        "both: fine-tune, then ablation": lambda: tools.ablated(trained("adam"), v),
        "both: ablation, then noise": lambda: tools.noisy(tools.ablated(t, v)),
        "both: LoRA, then ablation": lambda: tools.ablated(tools.low_rank(t, 16), v),
    }


def package_cases() -> dict[str, dict[str, object]]:
    """Our own edits, baked: name -> the arguments of `bake`."""
    return {
        "edit: ours, ablate": {},
        "edit: ours, norm-preserving": {"kind": "norm-preserving"},
        "edit: ours, reflect at a layer": {"kind": "reflect", "at": [2], "embeddings": "untie"},
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--only", default="")
    parser.add_argument("--forms", default="stored,4 bits")
    parser.add_argument("--blocks", type=int, default=6)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for model in given.models:
        name, folder = model.split("=", 1)
        source = Path(folder)
        tensors = cut(load_file(source / "model.safetensors"), given.blocks)
        for form in given.forms.split(","):
            base = tensors if form == "stored" else tools.each_matrix(tensors, tools.int4_affine)
            for case, changed in cases(base, source, given.blocks).items():
                if given.only and not any(part in case for part in given.only.split(",")):
                    continue
                # Of a model in 4 bits an edit is rounded to 4 bits again; what trains starts from the stored one.
                if form != "stored" and not case.startswith("edit"):
                    continue
                _one(name, form, case, base, changed, source, given.blocks)
            if form == "stored":
                for case, options in package_cases().items():
                    if not given.only or any(part in case for part in given.only.split(",")):
                        _baked(name, case, tensors, options, source, given.blocks)


def _one(
    name: str,
    form: str,
    case: str,
    base: tools.Tensors,
    changed: Callable[[], tools.Tensors],
    source: Path,
    blocks: int,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = changed()
        if form != "stored":
            made = {**made, **tools.each_matrix(made, tools.int4_affine)}
        a = save(Path(folder) / "a", base, source, blocks)
        b = save(Path(folder) / "b", made, source, blocks)
        _print(name, form, case, a, b)


def _baked(name: str, case: str, tensors: tools.Tensors, options: dict[str, object], source: Path, blocks: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        a = save(Path(folder) / "a", tensors, source, blocks)
        for extra in source.iterdir():
            if extra.name.startswith("tokenizer"):
                shutil.copy(extra, a / extra.name)
        rows = Directions(tools.unit(tools.width_of(tensors), 1)[None].float())
        try:
            bake(a, rows, Path(folder) / "b", **options)  # type: ignore[arg-type]
        except WeightEditError as error:
            print(json.dumps({"model": name, "case": case, "refused": str(error)[:120]}), flush=True)
            return
        _print(name, "stored", case, a, Path(folder) / "b")


def _print(name: str, form: str, case: str, a: Path, b: Path) -> None:
    began = time.monotonic()
    found = diff(a, b, verdict=True).verdict
    assert found is not None
    row = {"model": name, "form": form, "case": case, "said": found.said, "confidence": found.confidence}
    row |= {"edited": found.edited, "strength": found.strength, "writers": len(found.writers)}
    print(json.dumps(row | {"seconds": round(time.monotonic() - began, 1)}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
