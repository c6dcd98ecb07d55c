"""One small file of a Hub repository, fetched at a fixed commit and held to the size and digest that the Hub lists."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.whole_file import check_space, whole_file
from weight_edit.errors import UsageError
from weight_edit.hub.calls import hub_call, usable_token
from weight_edit.hub.repository import commit_id, listed
from weight_edit.utils.cache_folder import cache_folder
from weight_edit.utils.progress import bar

_PLAIN = re.compile(r"[A-Za-z0-9][\w.+-]{0,150}", re.ASCII)
_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class FetchedFile:
    """A file of a repository in the cache.

    Attributes:
        path: where it is.
        name: what it is called in the repository.
        commit: the one that it was fetched at.
    """

    path: Path
    name: str
    commit: str


def fetch_one(
    repo_id: str,
    choose: Callable[[list[str]], str],
    *,
    most: int,
    revision: str | None = None,
    token: str | None = None,
) -> FetchedFile:
    """Fetch the chosen file of a repository into the cache folder; nothing else of it.

    What is in the cache already, by its digest, is not fetched again.

    Args:
        choose: given the names of all files at the commit, the one that is fetched.
        most: the longest file in bytes.
        revision: branch, tag or commit; the main branch when None.
        token: Hub access token; None uses the one saved by `hf auth login`.

    Raises:
        UsageError: as `hub_call` and `choose`; the file is longer, has no room on the disk, or what came is not what
            the Hub lists.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=usable_token(token))
    with hub_call(repo_id, revision):
        commit = commit_id(api.model_info(repo_id, revision=revision).sha)
        files = listed(api, repo_id, commit)
    name = choose(sorted(files))
    size, digest = _size_and_digest(files[name], f"{printable(name)} of {repo_id}")
    if size > most:
        raise UsageError(f"{printable(name)} of {repo_id} has {size:,} bytes, and at most {most:,} are fetched")
    place = _cached(name, digest)
    if not (place.is_file() and place.stat().st_size == size and _digest_of(place, size, digest) == digest):
        check_space(place.parent, size, f"{printable(name)} of {repo_id} in the cache {printable(str(place.parent))}")
        place.parent.mkdir(parents=True, exist_ok=True)
        _download(api, repo_id, commit, name, place, size=size, digest=digest)
    return FetchedFile(place, name, commit)


def _cached(name: str, digest: str) -> Path:
    """The place of a file in the cache: by its digest, and under its own name where that can be one.

    Raises:
        UsageError: there is no cache.
    """
    root = cache_folder()
    if root is None:
        raise UsageError("there is no home folder to keep what is fetched; set WEIGHT_EDIT_CACHE to a folder")
    last = name.rpartition("/")[2]
    return root / "fetched" / digest / (last if _PLAIN.fullmatch(last) else "file")


def _size_and_digest(entry: Any, what: str) -> tuple[int, str]:
    """The size, and the SHA-256 of a file in large storage, else git's digest.

    Raises:
        UsageError: the Hub lists none.
    """
    digest = entry.blob_id if entry.lfs is None else entry.lfs.sha256
    form = _SHA1 if entry.lfs is None else _SHA256
    if type(entry.size) is not int or entry.size < 0 or not isinstance(digest, str) or not form.fullmatch(digest):
        raise UsageError(f"the Hub lists {what} without a size or a digest; try again later")
    return entry.size, digest


def _download(api: Any, repo_id: str, commit: str, name: str, place: Path, *, size: int, digest: str) -> None:
    """Fetch a file, and no more than its size."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

    url = hf_hub_url(repo_id, name, revision=commit, endpoint=api.endpoint)
    headers = {**build_hf_headers(token=api.token), "Accept-Encoding": "identity"}
    what, found, count = f"{printable(name)} of {repo_id}", _digester(size, digest), 0
    with whole_file(place) as file, bar(f"fetching {what}", size, unit="bytes") as progress:
        with hub_call(repo_id, commit), http_stream_backoff("GET", url, headers=headers) as response:
            hf_raise_for_status(response)
            for piece in response.iter_bytes(1 << 20):
                count += len(piece)
                if count > size:
                    break
                found.update(piece)
                file.write(piece)
                progress.advance(len(piece))
        if count != size or found.hexdigest() != digest:
            raise UsageError(f"{what} is not what the Hub lists: another size or digest came; try again later")


def _digester(size: int, digest: str) -> Any:
    """A new hash of the kind that a digest is of."""
    return hashlib.sha256() if len(digest) == 64 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def _digest_of(path: Path, size: int, digest: str) -> str:
    found = _digester(size, digest)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return str(found.hexdigest())
