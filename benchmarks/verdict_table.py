"""The confusion table of `diff --verdict`: what other tools' formulas and innocent changes are taken for.

    PYTHONPATH=. python benchmarks/verdict_models.py NAME=FOLDER ... --out TUNED --prompts PROMPTS
    PYTHONPATH=. python benchmarks/verdict_table.py run NAME=FOLDER ... --tuned TUNED --out FILE [--only CASE,...]
    PYTHONPATH=. python benchmarks/verdict_table.py show FILE ...

Each model is a folder with one `model.safetensors` whose tensors are called as in Llama. Its first blocks are compared,
with a part of the vocabulary, so that a case takes seconds; fine-tunes are those of the whole model. In the forms
`4 bits` and `int8` both sides are what rounding to them makes of the base and of the edit. FILE gets one JSON line a
case; cases that are there are not run again. `--part apart` runs the formulas that thresholds were fixed without, on
blocks near the end (from the eighth but last), which they were fixed without, too.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from verdict_cases import Case, Given, apart, both, edits, innocents, kept_tuned
from verdict_models import BLOCKS, cut

from tests.helpers import other_tools as tools
from weight_edit.baking.bake import bake
from weight_edit.difference.diff import diff
from weight_edit.difference.verdict_result import Verdict
from weight_edit.directions.directions import Directions
from weight_edit.errors import WeightEditError

ROWS = 2048
"""Rows of the vocabulary that are compared."""
FORMS = {"4 bits": tools.int4_affine, "int8": tools.int8_rows}
OURS: dict[str, dict[str, Any]] = {
    "ours: ablate": {},
    "ours: norm-preserving": {"kind": "norm-preserving"},
    "ours: reflect at a layer": {"kind": "reflect", "at": [2], "embeddings": "untie"},
}
"""Our own edits, baked: name -> the arguments of `bake`."""
OURS_RIGHT = {"ours: ablate": "ablation", "ours: norm-preserving": "norm-preserving", "ours: reflect at a layer": "ref"}


def save(folder: Path, tensors: tools.Tensors, config: dict[str, Any]) -> Path:
    """A model's folder, with a config to match."""
    folder.mkdir()
    blocks, vocabulary = tools.layers_of(tensors), len(tensors[tools.EMBEDDING])
    said = {**config, "num_hidden_layers": blocks, "vocab_size": vocabulary}
    # A padding token beyond the rows that are kept is refused by PyTorch, and the anatomy would not be known.
    said = {key: value for key, value in said.items() if not key.endswith("_token_id")}
    if isinstance(said.get("layer_types"), list):
        said["layer_types"] = said["layer_types"][:blocks]
    experts = next((t for name, t in tensors.items() if ".experts.0.w1" in name), None)
    if experts is not None:
        said["intermediate_size"] = len(experts)
    (folder / "config.json").write_text(json.dumps(said), encoding="utf-8")
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors")
    return folder


def outcome(kind: str, right: tuple[str, ...], found: Verdict) -> str:
    """How a verdict does.

    Returns:
        "right"; "undecided"; "other name"; "falsely certain" where that is certain; and of an edit "missed" where it is
        called no edit, of an innocent "ACCUSED" where it is called one.
    """
    named = any(name.startswith(right) for name in found.made_with)
    undecided = found.confidence == "undecided" or "undecided" in found.made_with
    if kind == "innocent" and found.edited:
        return "ACCUSED"
    if named and (kind == "innocent" or found.edited or not undecided):
        return "right"
    if undecided:
        return "undecided"
    if kind != "innocent" and not found.edited and found.confidence != "certain":
        return "missed"
    return "falsely certain" if found.confidence == "certain" else "other name"


def chosen(given: argparse.Namespace, g: Given, form: str) -> Iterator[tuple[str, str, Case]]:
    """Kind, name and case of all that is asked for."""
    parts: dict[str, Callable[[Given], dict[str, Case]]] = {"edit": edits, "innocent": innocents, "both": both}
    if given.part == "apart":
        for name, case in apart(g).items():
            kind, what = name.split(": ", 1)
            yield kind, what, case
        return
    for kind, of in parts.items():
        # Of a model in fewer bits an edit is rounded to them again; what trains starts from the stored one.
        if (form == "bfloat16" or kind == "edit") and given.part in ("", kind):
            for name, case in of(g).items():
                if not given.only or any(part in name for part in given.only.split(",")):
                    yield kind, name, case


def run(given: argparse.Namespace) -> None:
    """Compare, and write a line a case."""
    done = set()
    if given.out.exists():
        rows = [json.loads(line) for line in given.out.read_text(encoding="utf-8").splitlines()]
        done = {(row["model"], row["form"], row["case"]) for row in rows}
    for model in given.models:
        name, folder = model.split("=", 1)
        source = Path(folder)
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        tensors = load_file(source / "model.safetensors")
        last = given.part == "apart"
        first = tools.layers_of(tensors) - BLOCKS if last else 0
        small = {k: t[:ROWS].clone() if len(t) > ROWS and t.ndim == 2 and ".layers." not in k else t
                 for k, t in cut(tensors, given.blocks, first).items()}  # fmt: skip
        tuned = kept_tuned(f"{given.tuned}/{name}", given.blocks, ROWS, "-last" if last else "")
        for form in ("bfloat16",) if last else given.forms.split(","):
            base = small if form == "bfloat16" else tools.each_matrix(small, FORMS[form])
            offset = 1.0 if config["model_type"].startswith("gemma") else 0.0
            head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
            g = Given(base=base, tuned=tuned, gain_offset=offset, head=head)
            for kind, case_name, case in chosen(given, g, form):
                row = {"model": name, "form": "kept apart" if last else form, "kind": kind, "case": case_name}
                if (name, row["form"], case_name) not in done:
                    _one(row, g, case, config, given.out)
            if form == "bfloat16" and given.part in ("", "edit"):
                for ours, options in OURS.items():
                    row = {"model": name, "form": form, "kind": "edit", "case": ours}
                    if (name, form, ours) not in done and (not given.only or given.only in ours):
                        _baked(row, g, options, source, given.out)


def _one(row: dict[str, Any], g: Given, case: Case, config: dict[str, Any], out: Path) -> None:
    base = g.base if case.base is None else case.base()
    made = case.made()
    if row["form"] in FORMS:
        base, made = (tools.each_matrix(side, FORMS[row["form"]]) for side in (base, made))
    with tempfile.TemporaryDirectory() as folder:
        a = save(Path(folder) / "a", base, {**config, **case.config})
        b = save(Path(folder) / "b", made, {**config, **case.config})
        _compare(row, case.right, a, b, out)


def _baked(row: dict[str, Any], g: Given, options: dict[str, Any], source: Path, out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        a = save(Path(folder) / "a", g.base, json.loads((source / "config.json").read_text(encoding="utf-8")))
        for extra in source.glob("tokenizer*"):
            shutil.copy(extra, a / extra.name)
        try:
            bake(a, Directions(g.v[None].float()), Path(folder) / "b", **options)
        except WeightEditError as error:
            print(json.dumps(row | {"refused": str(error)[:120]}), flush=True)
            return
        _compare(row, (OURS_RIGHT[row["case"]],), a, Path(folder) / "b", out)


def _compare(row: dict[str, Any], right: tuple[str, ...], a: Path, b: Path, out: Path) -> None:
    began = time.monotonic()
    found = diff(a, b, verdict=True).verdict
    assert found is not None
    row |= {"outcome": outcome(row["kind"], right, found), "said": found.said, "confidence": found.confidence}
    row |= {"edited": found.edited, "strength": found.strength, "writers": len(found.writers)}
    line = json.dumps(row | {"seconds": round(time.monotonic() - began, 1)})
    print(line, flush=True)
    with out.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def show(files: list[Path]) -> None:
    """Print counts, and the table: a row a case, a column a model."""
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    columns = list(dict.fromkeys((row["model"], row["form"]) for row in rows))
    print("| model | form | kind | outcomes |\n|---|---|---|---|")
    for column in columns:
        for kind in ("edit", "innocent", "both"):
            found = [row["outcome"] for row in rows if (row["model"], row["form"], row["kind"]) == (*column, kind)]
            if found:
                counts = ", ".join(f"{found.count(each)} {each}" for each in dict.fromkeys(sorted(found)))
                print(f"| {column[0]} | {column[1]} | {kind} | {counts} |")
    models = list(dict.fromkeys(row["model"] for row in rows))
    print("\n| what was done | " + " | ".join(models) + " |\n|---" + "|---" * len(models) + "|")
    for form, kind, case in dict.fromkeys((row["form"], row["kind"], row["case"]) for row in rows):
        said = {row["model"]: row for row in rows if (row["form"], row["kind"], row["case"]) == (form, kind, case)}
        what = f"{kind}: {case}" + ("" if form == "bfloat16" else f" ({form})")
        print(f"| {what} | " + " | ".join(_cell(said.get(model)) for model in models) + " |")


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    mark = "" if row["outcome"] == "right" else f" **{row['outcome']}**"
    said = row["said"].replace(" (as of a merged LoRA)", "").replace("something undecided at the same tensors", "more")
    return f"{said}, {row['confidence']}{mark}"


def main() -> None:
    """Run or show."""
    parser = argparse.ArgumentParser()
    what = parser.add_subparsers(dest="what", required=True)
    one = what.add_parser("run")
    one.add_argument("models", nargs="+")
    one.add_argument("--tuned", type=Path, required=True)
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--only", default="")
    one.add_argument("--part", default="", choices=("", "edit", "innocent", "both", "apart"))
    one.add_argument("--forms", default="bfloat16,4 bits")
    one.add_argument("--blocks", type=int, default=4)
    other = what.add_parser("show")
    other.add_argument("files", nargs="+", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "run":
        run(given)
    else:
        show(given.files)


if __name__ == "__main__":
    sys.exit(main())
