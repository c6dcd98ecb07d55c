"""Prompt sets by name: a built-in set, a file, or a data set on the Hub."""

import os
import re
from dataclasses import replace
from pathlib import Path

from weight_edit.errors import UsageError
from weight_edit.prompts.atoms.atoms import atom_file
from weight_edit.prompts.columns import Table, prompt_set_of_table
from weight_edit.prompts.files import READERS, check_file, read_table
from weight_edit.prompts.hub import DatasetName, parse_dataset, read_dataset
from weight_edit.prompts.json_table import NamedSets
from weight_edit.prompts.public_sets import Chosen, chosen_set, load_public, public_sets
from weight_edit.prompts.readings import note_reading
from weight_edit.prompts.sets import PromptSet
from weight_edit.utils.names import nearest
from weight_edit.utils.progress import announce

FORMS = (
    "organism:NAME[:SPLIT], atoms:NAME, a public set's name[:PART], a file (" + ", ".join(READERS) + ", each with an "
    "optional :COLUMN), or org/dataset:SPLIT[:COLUMN]"
)


def load_prompts(spec: str | Path | PromptSet, *, column: str | None = None) -> PromptSet:
    """Load a prompt set by its name; a `PromptSet` itself passes through.

    Args:
        spec: a prompt set, or one of
            `organism:NAME[:SPLIT]`, a set of the embedded model: refused, answered, over-refused,
                harmless-looking, a category or a kind of answered ones (answered-cooking); split train (default),
                validation, test or a held-out one; the answers are those the model gave before it was tuned to refuse;
            `atoms:NAME`, a few prompts that show one ability or style (mathematics, code, format, ...), or `everyday`;
            a public set by its name (advbench, jailbreakbench, xstest, ...; docs/command-line.md lists them), with the
                name of a part and rows where they are wanted: `jailbreakbench:benign`, `alpaca[:128]`; it is
                downloaded, and wins over what is called like it here, as the name of a prompt file has an ending;
            a file, one prompt a line (.txt) or with columns (.jsonl, .json, .csv, .parquet; `x.csv:COLUMN`), and
                `x.json:SET[:COLUMN]` of several sets in one file;
            `org/dataset:SPLIT[:COLUMN]` on the Hub, with slices (`train[:128]`), and
                `org/dataset/CONFIGURATION:SPLIT` where the data set has configurations.
            An existing file wins over a data set of the same name.
        column: the column of the prompts; None takes the one in `spec`, else one known to hold prompts.

    Returns:
        The prompts in their order, stripped, without empty and repeated ones, which are counted.

    Raises:
        UsageError: no such file, set, split or column; unreadable; no prompts; terms of a data set that were not
            accepted; or the Hub is out of reach.
    """
    if isinstance(spec, PromptSet):
        return spec
    spec = os.fspath(spec)
    check_prompts(spec)
    if _is_embedded(spec):
        return _embedded(spec)
    if spec.startswith("atoms:"):
        return prompt_set_of_table(spec, _read(atom_file(spec.removeprefix("atoms:")), None)[0], None)
    public = chosen_set(spec)
    if public is not None:
        _note_namesake(public)
        found = load_public(public, column)
        note_reading(found)
        return found
    file, behind = _file(spec)
    if file is not None:
        table, file_column = _read(file, behind)
        found = prompt_set_of_table(spec, table, column or file_column)
        if file.suffix.lower() == ".txt":  # its lines stand in no column
            found = replace(found, columns={})
    else:
        dataset = _dataset(spec)
        found = prompt_set_of_table(spec, read_dataset(dataset), column or dataset.column)
    note_reading(found)
    return found


def check_prompts(spec: str) -> None:
    """Refuse what `load_prompts` would refuse without reading anything.

    Raises:
        UsageError: no form of a set's name, no such set of the embedded model, or a file that is missing or of another
            type.
    """
    if not spec.strip():
        raise UsageError(f"an empty name for a prompt set; write {FORMS}")
    if _is_embedded(spec):
        _embedded(spec)  # made in memory: nothing is read
        return
    if spec.startswith("atoms:"):
        atom_file(spec.removeprefix("atoms:"))
        return
    if chosen_set(spec) is not None:
        return
    file, _ = _file(spec)
    if file is not None:
        check_file(file)
    else:
        _dataset(spec)


def _is_embedded(spec: str) -> bool:
    return spec == "organism" or spec.startswith("organism:")


def _read(file: Path, behind: str | None) -> tuple[Table, str | None]:
    """A file's table and the column's name; of several sets, the name's first part picks one."""
    table = read_table(file)
    if not isinstance(table, NamedSets):
        return table, behind
    named, _, column = (behind or "").partition(":")
    return table.table(file, named or None), column or None


def _dataset(spec: str) -> DatasetName:
    dataset = parse_dataset(spec)
    if dataset is None:
        near = nearest(re.split(r"[:\[]", spec)[0].lower(), public_sets())
        meant = f"; did you mean '{near[0]}'?" if near else f"; write {FORMS}"
        raise UsageError(f"{spec}: there is no such file, and it is no data set's name{meant}")
    return dataset


def _note_namesake(chosen: Chosen) -> None:
    """Say that a public set is read and not what has its name in the current folder."""
    if Path(chosen.name).exists():
        announce(
            f"{chosen.spec} is the public set; for what is called {chosen.name} in this folder write ./{chosen.name}"
        )


def _file(spec: str) -> tuple[Path | None, str | None]:
    """The file that `spec` names and the rest of `spec`; (None, None) for a data set."""
    # From the right, so that the colon of a drive letter (C:\prompts.csv) stays in the path.
    path, behind = spec, ""
    for _ in range(3):
        if _is_file(Path(path)):
            return Path(path), behind or None
        path, colon, right = path.rpartition(":")
        if not (colon and right):
            break
        behind = f"{right}:{behind}" if behind else right
    return None, None


def _is_file(path: Path) -> bool:
    return path.suffix.lower() in READERS or path.exists()


def _embedded(spec: str) -> PromptSet:
    from weight_edit.organism.corpus import prompt_set

    _, _, rest = spec.partition(":")
    name, _, split = rest.partition(":")
    requests = prompt_set(name, split or "train")
    return PromptSet.of(
        f"organism:{name}:{split or 'train'}",
        [request.prompt for request in requests],
        [request.helpful for request in requests],
        # Ordinary requests have no category, but kinds of their own, which splits keep in proportion too.
        [request.category or request.group for request in requests],
    )
