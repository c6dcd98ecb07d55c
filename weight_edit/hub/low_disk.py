"""A Hub model in little disk space: each shard is downloaded, used and deleted in turn."""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from types import TracebackType

from weight_edit.checkpoint.files import SKIPPED, list_files, printable, read_whole
from weight_edit.checkpoint.source.choice import CONFIG, choose, small_files
from weight_edit.checkpoint.source.refused import check_config
from weight_edit.errors import UsageError
from weight_edit.hub.calls import hub_call, usable_token
from weight_edit.hub.source import Named, Source, find_local, read_hub_config, text_of

_HEAD = 256 * 1024
"""Bytes read at once from a shard's start: more than most headers, to save round trips."""

_TRIES = 5
_TIMEOUT = 60

# Both lie in a folder that is no part of a model, so that no copy of the model has them.
_BOOKKEEPING = Path(".cache") / "huggingface" / "download"
_OURS = Path(".cache") / "weight_edit"


@dataclass(kw_only=True)
class LowDiskSource:
    """A `ShardProvider` of a Hub repository: small files stay in a folder, shards come and go.

    Use it as a context: the folder goes at the end, whatever happens.

    Attributes:
        source: the repository at its commit; its path is the folder.
        sizes: shard -> its bytes, by the Hub's list of files.
        digests: shard -> its SHA-256 by that list, where the Hub knows it.
    """

    source: Source
    sizes: Mapping[str, int]
    digests: Mapping[str, str]
    _token: str | None = field(repr=False)
    _lock: int = field(repr=False)
    _head: tuple[str, bytes] = field(default=("", b""), repr=False)

    @classmethod
    def open(
        cls,
        name: Named,
        folder: Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        headers_only: bool = False,
    ) -> "LowDiskSource":
        """Download a repository's small files into `folder`, and list its shards' sizes.

        Args:
            name: a Hub id; a local folder is refused, for only downloads may be deleted.
            folder: a folder for this alone, which is made. What an interrupted run left in it is used again.
            revision, token: as in `hub.source.resolve`.
            headers_only: of the small files download no more than it takes to look at a model: config.json, the index
                and Python code.

        Raises:
            UsageError: a local model, a folder with something else in it, or as in `hub.source.resolve`.
            UnsupportedError: as in `hub.source.resolve`.
        """
        if find_local(name) is not None:
            raise UsageError(
                f"{text_of(name)} is on this disk already: `low_disk=True` deletes each shard after use, which is done "
                "only with downloads; leave it out, or give a Hub id",
                option="low_disk",
            )
        repo, token = text_of(name), usable_token(token)
        # The transfer library may keep gigabytes of what it downloads in a cache of its own; it reads this once.
        os.environ.setdefault("HF_XET_CHUNK_CACHE_SIZE_BYTES", "0")
        with hub_call(repo, revision):
            from huggingface_hub import HfApi
            from huggingface_hub.hf_api import RepoFile

            api = HfApi(token=token)
            commit = str(api.model_info(repo, revision=revision).sha)
            tree = api.list_repo_tree(repo, recursive=True, revision=commit)
            found = {file.path: file for file in tree if isinstance(file, RepoFile)}
        files = tuple(sorted(name for name in found if not SKIPPED.intersection(name.split("/"))))
        root, lock = _claimed(folder)
        source = Source(repo, root, commit)
        try:
            _download(source, token, [CONFIG])
            config = read_hub_config(source.path, files, repo)
            check_config(config)

            def read(name: str) -> bytes:
                _download(source, token, [name])
                return bytes(read_whole(source.path / name))

            chosen = choose(config, files, read, repo)
            small = small_files(files, chosen)
            if headers_only:
                small = tuple(name for name in small if name in (CONFIG, chosen.index_file) or name.endswith(".py"))
            _download(source, token, small)
            for stale in set(list_files(source.path)[0]) - {*small, *chosen.shards}:
                (source.path / stale).unlink()
        except BaseException:
            shutil.rmtree(source.path)
            os.close(lock)
            raise
        sizes = {shard: found[shard].size for shard in chosen.shards}
        digests = {shard: lfs.sha256 for shard in chosen.shards if (lfs := found[shard].lfs) is not None}
        return cls(source=source, sizes=sizes, digests=digests, _token=token, _lock=lock)

    def read(self, shard: str, begin: int, count: int) -> bytes:
        """`count` bytes of a shard, beginning at `begin`, by one range request.

        Raises:
            UsageError: the Hub cannot be reached, refuses, or sends something else.
        """
        if begin == 0 and self._head[0] != shard:
            self._head = (shard, self._range(shard, 0, min(_HEAD, self.sizes[shard])))
        name, head = self._head
        if name == shard and begin + count <= len(head):
            return head[begin : begin + count]
        return self._range(shard, begin, count)

    def identity(self, shard: str) -> str:
        """The shard's SHA-256, or its repository and commit; see `ShardProvider`."""
        return self.digests.get(shard) or f"{self.source.name}@{self.source.revision}"

    def fetch(self, shard: str) -> Path:
        """Download a shard into the folder, and check its size and SHA-256.

        Raises:
            UsageError: the download fails, or its size or SHA-256 is not what the Hub's list says.
        """
        source = self.source
        with hub_call(source.name, source.revision):
            from huggingface_hub import hf_hub_download

            options = {"revision": source.revision, "token": self._token, "local_dir": source.path}
            path = Path(hf_hub_download(source.name, shard, **options))
        problem = self._problem(shard, path)
        if problem is not None:
            self.drop(shard)
            raise UsageError(f"{printable(shard)} of {source.name} came damaged: {problem}; start again")
        return path

    def drop(self, shard: str) -> None:
        """Delete a shard from the folder, with the download's bookkeeping."""
        (self.source.path / shard).unlink(missing_ok=True)
        kept = self.source.path / _BOOKKEEPING / shard
        for ending in (".metadata", ".lock"):
            kept.with_name(kept.name + ending).unlink(missing_ok=True)

    def close(self) -> None:
        """Delete the folder with all downloads."""
        shutil.rmtree(self.source.path)
        os.close(self._lock)

    def __enter__(self) -> "LowDiskSource":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _range(self, shard: str, begin: int, count: int) -> bytes:
        what = f"{printable(shard)} of {self.source.name}"
        with hub_call(self.source.name, self.source.revision):
            import httpx2

            for left in reversed(range(_TRIES)):
                try:
                    data = self._request(shard, begin, count)
                    break
                except httpx2.TransportError:
                    if not left:
                        raise
                    time.sleep(1)
        if data is None:
            raise UsageError(f"{what} cannot be read in parts from this Hub; leave out `low_disk`", option="low_disk")
        if len(data) != count:
            raise UsageError(f"{what}: {len(data)} bytes came where {count} were asked for; start again")
        return data

    def _request(self, shard: str, begin: int, count: int) -> bytes | None:
        """The bytes of a range; None if the server sends the whole file."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

        url = hf_hub_url(self.source.name, shard, revision=self.source.revision)
        headers = build_hf_headers(token=self._token)
        headers |= {"Range": f"bytes={begin}-{begin + count - 1}", "Accept-Encoding": "identity"}
        # Broken streams are tried again by the caller: this helper can do so only before the first byte.
        with http_stream_backoff("GET", url, headers=headers, timeout=_TIMEOUT, retry_on_exceptions=()) as response:
            hf_raise_for_status(response)
            if response.status_code != 206:
                return None
            data = bytearray()
            for piece in response.iter_bytes():
                data += piece
                if len(data) > count:
                    break
            return bytes(data)

    def _problem(self, shard: str, path: Path) -> str | None:
        size = path.stat().st_size
        if size != self.sizes[shard]:
            return f"it has {size} bytes where the Hub lists {self.sizes[shard]}"
        if shard in self.digests:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != self.digests[shard]:
                return "its SHA-256 is not the one that the Hub lists"
        return None


def _claimed(folder: Path) -> tuple[Path, int]:
    """The folder, created and marked as deletable, and the lock that this process holds on it.

    Never one with anything of the user's in it, nor one that another process downloads to.
    """
    root = folder.absolute()
    for path in (root, root / _OURS.parent, root / _OURS):
        if path.is_symlink():
            raise UsageError(f"{printable(str(path))} is a link and is not written through; remove it")
    root = root.resolve()
    try:
        if root.is_dir() and any(root.iterdir()) and not (root / _OURS).exists():
            raise UsageError(
                f"{printable(str(root))} is not empty; low-disk needs a folder of its own for its downloads"
            )
        (root / _OURS).parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(root / _OURS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise UsageError(f"{printable(str(root))} cannot be made for downloads: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise UsageError(
            f"another process downloads to {printable(str(root))}; wait for it, or choose another output"
        ) from None
    except OSError:
        # A file system without locks: nobody can know.
        return root, lock
    return root, lock


def _download(source: Source, token: str | None, names: Collection[str]) -> None:
    with hub_call(source.name, source.revision):
        from huggingface_hub import snapshot_download

        patterns = [escape(name) for name in names]
        options = {"revision": source.revision, "token": token, "local_dir": source.path}
        snapshot_download(source.name, allow_patterns=patterns, **options)
