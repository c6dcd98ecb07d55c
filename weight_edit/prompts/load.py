"""PROMPTS, as users write them: a built-in set, a file, or a data set on the Hub."""

import os
from pathlib import Path

from weight_edit.errors import UsageError
from weight_edit.prompts.atoms import atom_file
from weight_edit.prompts.columns import prompt_set_of_table
from weight_edit.prompts.files import READERS, read_table
from weight_edit.prompts.hub import parse_dataset, read_dataset
from weight_edit.prompts.sets import PromptSet

FORMS = (
    "organism:NAME[:SPLIT], atoms:NAME, a file (" + ", ".join(READERS) + ", each with an optional :COLUMN), "
    "or org/dataset:SPLIT[:COLUMN]"
)


def load_prompts(spec: str | Path | PromptSet, *, column: str | None = None) -> PromptSet:
    """Load a set of prompts; one that is loaded already is given back.

    Args:
        spec: a prompt set, or one of
            `organism:NAME[:SPLIT]`, a set of the embedded model: refused, answered, over-refused,
                harmless-looking, a category or a kind of answered ones (answered-cooking); split train (default),
                validation, test or a held-out one; the answers are those the model gave before it was tuned to refuse;
            `atoms:NAME`, a few prompts that show one ability or style (mathematics, code, format, ...), or `everyday`;
            a file, one prompt a line (.txt) or with columns (.jsonl, .json, .csv, .parquet; `x.csv:COLUMN`);
            `org/dataset:SPLIT[:COLUMN]` on the Hub, with slices (`train[:128]`), and
                `org/dataset/CONFIGURATION:SPLIT` where the data set has configurations.
            An existing file wins over a data set of the same name.
        column: the column of the prompts; None takes the one in `spec`, else one known to hold prompts.

    Returns:
        The prompts in their order, stripped, without empty and repeated ones, which are counted.

    Raises:
        UsageError: no such file, set, split or column; unreadable; no prompts; or the Hub is out of reach.
    """
    if isinstance(spec, PromptSet):
        return spec
    spec = os.fspath(spec)
    if not spec.strip():
        raise UsageError(f"an empty name for a prompt set; write {FORMS}")
    if spec == "organism" or spec.startswith("organism:"):
        return _embedded(spec)
    if spec.startswith("atoms:"):
        return prompt_set_of_table(spec, read_table(atom_file(spec.removeprefix("atoms:"))), None)
    file, file_column = _file(spec)
    if file is not None:
        return prompt_set_of_table(spec, read_table(file), column or file_column)
    dataset = parse_dataset(spec)
    if dataset is None:
        raise UsageError(f"{spec}: there is no such file, and it is no data set's name; write {FORMS}")
    return prompt_set_of_table(spec, read_dataset(dataset), column or dataset.column)


def _file(spec: str) -> tuple[Path | None, str | None]:
    """The file and column that `spec` names, or (None, None) where it can only be a data set."""
    whole = Path(spec)
    if _is_file(whole):
        return whole, None
    # From the right, so that the colon of a drive letter (C:\prompts.csv) stays in the path.
    left, colon, right = spec.rpartition(":")
    if colon and right and _is_file(Path(left)):
        return Path(left), right
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
