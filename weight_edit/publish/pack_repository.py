"""What a repository holds in which an edit is published alone: its pack, and a card."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weight_edit.baking.card.card import model_card
from weight_edit.baking.card.card_and_manifest import README
from weight_edit.baking.card.usage import PackFile
from weight_edit.checkpoint.manifest import FileRecord, FinishedOutput, record
from weight_edit.checkpoint.whole_file import write_whole
from weight_edit.hub.destination import Destination
from weight_edit.hub.source import Named
from weight_edit.packs.pack import pack_checked

PACK = "edit.safetensors"


@contextmanager
def pack_repository(
    edited: FinishedOutput,
    to: Destination,
    *,
    base: Named | None,
    token: str | None,
    trust_remote_code: bool,
) -> Iterator[tuple[Path, dict[str, FileRecord]]]:
    """A folder with the pack and the card of an edited checkpoint, and their records; it is gone behind the block.

    Args:
        edited: the checkpoint, whose files were checked.
        to: where they are published, for the commands on the card.
        base: what was edited, if the manifest does not say where it is.
        token, trust_remote_code: as in `push`.

    Raises:
        UsageError, VerificationError: as `packs.pack.pack_checked`.
    """
    with tempfile.TemporaryDirectory(prefix="weight_edit-") as scratch:
        folder = Path(scratch)
        made = pack_checked(edited, folder / PACK, base=base, token=token, trust_remote_code=trust_remote_code)
        write_whole(folder / README, model_card(edited.manifest, PackFile(PACK, made.size, to.repo_id)).encode())
        yield folder, {name: record(folder, name, "added") for name in (PACK, README)}
