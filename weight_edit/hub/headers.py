"""A model's config and shard headers; of a Hub model nothing else is fetched."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from weight_edit.checkpoint.files import list_files
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.source.choice import is_weights
from weight_edit.errors import UsageError
from weight_edit.hub.source import Named, Source, find_local, resolve, text_of


@contextmanager
def with_headers(
    name: Named, *, revision: str | None = None, token: str | None = None
) -> Iterator[tuple[Source, Checkpoint | None]]:
    """Open a model's config and headers; files fetched for this are deleted at the end.

    Args:
        name: an embedded model such as "organism", a folder, a GGUF file, or a Hub id.
        revision, token: as in `hub.source.resolve`.

    Yields:
        The source and its checkpoint; None instead of the latter for a local folder without any weights.

    Raises:
        UsageError, UnsupportedError: as `hub.source.resolve` and `Checkpoint.open` do.
    """
    with ExitStack() as stack:
        source, checkpoint = _local(name, revision) or _on_hub(text_of(name), revision, token, stack)
        yield source, checkpoint


def _local(name: Named, revision: str | None) -> tuple[Source, Checkpoint | None] | None:
    if find_local(name) is None:
        return None
    source = resolve(name, revision=revision)
    any_weights = source.path.is_file() or any(is_weights(file) for file in list_files(source.path)[0])
    return source, Checkpoint.open(source.path) if any_weights else None


def _on_hub(name: str, revision: str | None, token: str | None, stack: ExitStack) -> tuple[Source, Checkpoint]:
    import httpx2
    from huggingface_hub.errors import OfflineModeIsEnabled

    from weight_edit.hub.low_disk import LowDiskSource

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="weight-edit-")))
    try:
        low = LowDiskSource.open(name, folder / "model", revision=revision, token=token, headers_only=True)
    except UsageError as error:
        if not isinstance(error.__cause__, OfflineModeIsEnabled | ConnectionError | httpx2.NetworkError):
            raise
        # Without a connection, what an earlier use of the model left in the cache will do.
        source = resolve(name, revision=revision, token=token)
        return source, Checkpoint.open(source.path)
    stack.enter_context(low)
    return low.source, Checkpoint.open(low.source.path, low)
