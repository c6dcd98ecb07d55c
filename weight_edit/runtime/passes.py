"""Forward passes: prompts under variants in batches, each computed once and no more of it than is read.

Every question to a model goes through `run_model`. A batch holds prompts of similar length under one or several
variants; what all prompts begin with is run once for each variant (`prefix`), so is a prompt that several sequences
begin with (`stems`), and what a variant does not change in front of its first block is taken over from the plain model
(`trunk`). How many rows share a batch is decided by the memory that is free, and halved when it runs out after all.
Where the model lies on disk, all batches go through a block before the next one is read.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol, TypeVar

from weight_edit.errors import UsageError
from weight_edit.runtime.batching import Batch
from weight_edit.runtime.loading import Model
from weight_edit.runtime.memory import sequences_at_once
from weight_edit.runtime.prefix import common_prefix
from weight_edit.runtime.processes import agreed, current, pooled
from weight_edit.runtime.request import Request
from weight_edit.runtime.stems import Stems
from weight_edit.runtime.trunk import Trunk
from weight_edit.runtime.variants import PLAIN, Variant
from weight_edit.utils.progress import Bar, bar

T = TypeVar("T")


class Numbered(Protocol):
    """What says which rows results are of: a batch, or the rows alone where another process ran it."""

    @property
    def rows(self) -> tuple[int, ...]:
        """The rows' numbers."""
        ...


@dataclass(frozen=True)
class Elsewhere:
    """The rows of a batch that another process may have run.

    Attributes:
        rows: their numbers.
    """

    rows: tuple[int, ...]


def run_model(
    model: Model,
    sequences: Sequence[Sequence[int]],
    step: Callable[[Batch], T],
    *,
    variants: Sequence[Variant] = (PLAIN,),
    keep: Sequence[int] | None = None,
    read: int = 0,
    trunk: Trunk | None = None,
    stems: Stems | None = None,
    batch_size: int | None = None,
    description: str | None = None,
    within: Bar | None = None,
    costs: Sequence[float] | None = None,
) -> Iterator[tuple[Numbered, T]]:
    """Apply `step` to batches of all sequences under all variants, as much at once as memory allows.

    The rows of a batch are numbered `variant * len(sequences) + sequence`. `step` may be called again for rows whose
    first try ran out of memory, so its effects belong in what it returns, not in what it changes. Several processes
    that ask together (`processes`) each run a share of the batches, and all get all results.

    Args:
        step: runs `forward_backbone` or `last_logits` on the batch, once.
        variants: the edits, each run as if it were alone.
        keep: how many of each sequence's last tokens the pass is asked about: what all begin with, in front of these,
            may be run once. None asks about all tokens.
        read: the positions of a row whose logits are read, for what memory allows.
        trunk: filled by passes of the plain model, and used for variants that begin behind the first block.
        stems: what sequences begin with, read once for all that share it where that is possible and pays; what `keep`
            says leaves at least one token of them. Not beside a trunk.
        batch_size: rows at once, at most; None is as many as memory allows.
        description: names the progress bar; None draws none.
        within: a bar of the caller's that counts rows, instead of one's own.
        costs: of each sequence, by which several processes share the work; its tokens when None.

    Raises:
        ProcessError: another process ended.
        UsageError: a sequence is empty or has a token that the model has no embedding for, the batch size is below 1,
            or memory runs out with a single sequence.
    """
    check_tokens(model, sequences)
    longest = max(map(len, sequences), default=1)
    if trunk is not None and trunk.sequences != [list(sequence) for sequence in sequences]:
        raise ValueError("a trunk is of one list of prompts")
    if trunk is not None and stems is not None:
        raise ValueError("passes that go on from stems begin at the first block; give no trunk")
    processes = current()
    most = sequences_at_once(model, longest, read) if batch_size is None else batch_size
    request = Request(
        model=model,
        sequences=sequences,
        step=step,
        prefix=[] if keep is None or (stems and stems.held) else common_prefix(model, sequences, keep),
        trunk=trunk if model.offload is None else None,
        # What one machine has room for may differ from the next, and all have to cut the same batches.
        most=agreed(most, "the size of batches"),
        read=read,
        stems=stems if stems is None or stems.held is not None or stems.pays(model) else None,
    )
    taken = list(enumerate(variants))
    if processes is not None:
        rank, number = processes.place.rank, processes.place.count

        def take(each: Sequence[float]) -> list[int]:
            return processes.share(each)[rank]

        if trunk is None and len(request.chunks) < number <= len(variants):
            taken = [taken[variant] for variant in take([1] * len(variants))]
        else:
            request.shared_out(number, take, [len(some) for some in sequences] if costs is None else costs)
    with bar(description, len(sequences) * len(variants)) if description else nullcontext(within) as drawn:
        if processes is None:
            yield from request.results(taken, drawn)
            return

        def run() -> list[tuple[tuple[int, ...], T]]:
            return [(batch.rows, made) for batch, made in request.results(taken, drawn)]

        parts = pooled(run, f"{len(sequences)} prompts under {len(variants)} edits")
        for number, part in enumerate(parts):
            rows = sum(len(some) for some, _ in part)
            processes.prompts[number] += rows
            if drawn is not None and number != processes.place.rank:
                # The bar counts the rows of all; what others did is heard of in the end.
                drawn.advance(rows)
            for some, made in part:
                yield Elsewhere(some), made


def check_tokens(model: Model, sequences: Sequence[Sequence[int]]) -> None:
    """Refuse token ids outside of the embedding.

    They would fail deep inside the model, or end the process on a GPU.

    Raises:
        UsageError: names the id and the number of embeddings.
    """
    count = model.embeddings
    for row, sequence in enumerate(sequences):
        wrong = next((token for token in sequence if not 0 <= token < count), None)
        if wrong is not None:
            raise UsageError(
                f"text {row + 1} has the token {str(wrong)[:40]}, but the model has embeddings for 0 to {count - 1}; "
                "its tokenizer is another model's, or the text has a token that this model does not know"
            )
