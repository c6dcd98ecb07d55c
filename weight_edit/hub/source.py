"""The source of a model's files: the embedded model, a local folder or the Hub."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from weight_edit.checkpoint.files import SKIPPED, check_regular, list_files, locate, printable, read_json, read_whole
from weight_edit.checkpoint.gguf.header import is_gguf
from weight_edit.checkpoint.gguf.parts import gguf_files
from weight_edit.checkpoint.source.choice import CONFIG, Chosen, choose, small_files
from weight_edit.checkpoint.source.refused import check_config, single_file, without_config
from weight_edit.checkpoint.whole_file import check_space
from weight_edit.errors import UsageError
from weight_edit.hub.calls import hub_call, usable_token
from weight_edit.organism.embedded import EMBEDDED, folder
from weight_edit.utils.progress import beside

LONGEST = 100_000_000
"""The longest config.json in bytes; real ones are below a million."""


@dataclass(frozen=True)
class Source:
    """The location of a model's files.

    Attributes:
        name: what the user called it.
        path: a local folder with config.json (the snapshot folder for a Hub id), one that holds a GGUF model, or a GGUF
            file.
        revision: the commit for a Hub id; None for a folder and the embedded model.
        in_memory: of a model that was put together in memory: no files are known to be those of it.
    """

    name: str
    path: Path
    revision: str | None
    in_memory: bool = False

    @property
    def public_name(self) -> str:
        """The name fit for publication: of a local folder only the last part."""
        name = self.name if self.on_hub else Path(self.name).name or self.path.resolve().name
        # A folder's name may be no Unicode, and a card or a manifest must be.
        return name.encode("utf-8", "replace").decode()

    @property
    def on_hub(self) -> bool:
        """Whether the files come from the Hub."""
        return self.revision is not None


@runtime_checkable
class FromFiles(Protocol):
    """An object made from a model's files, such as a loaded model."""

    source: Source


Named: TypeAlias = str | os.PathLike[str] | FromFiles
"""A model by name (embedded, folder or Hub id), or an object loaded from one."""


def resolve(
    name: Named,
    *,
    revision: str | None = None,
    token: str | None = None,
    weights: bool = True,
    edited: bool = True,
) -> Source:
    """The location of a model's files, with missing files of a Hub repository downloaded.

    Args:
        name: "organism", "organism-defended", "organism-thinking" or "organism-decoyed" (embedded models), a folder, a
            GGUF file, or a Hub id such as "org/model"; or a loaded model, whose files are meant, whatever has been done
            to it since.
        revision: branch, tag or commit, for a Hub id only.
        token: Hub access token; None uses the one saved by `hf auth login`.
        weights: False leaves out the safetensors files.
        edited: whether the model is to be edited, so that formats which cannot be are refused before anything else.

    Raises:
        UsageError: no such folder or repository, no access, offline, or no config.json or weights.
        UnsupportedError: weights only in formats that are not read (`pytorch_model.bin`, an adapter), or that cannot be
            edited.
    """
    local = find_local(name)
    if local is None:
        return _download(text_of(name), revision, usable_token(token), weights, edited)
    if revision is not None and local.on_hub:
        if revision == local.revision:
            return local
        raise UsageError(f"{local.name} is loaded at the revision {local.revision}; give its name for {revision}")
    if revision is not None:
        raise UsageError(f"{local.name} is a local folder and has no revision; drop the revision {revision}")
    if gguf_files(local.path) is not None:
        return local
    _check_has_config(local.path)
    check_regular(local.path)
    if edited:
        check_config(read_local_config(local.path))
    return local


def _check_has_config(folder: Path) -> None:
    if not (folder / CONFIG).is_file():
        raise without_config(list_files(folder)[0], str(folder))


def check_named(name: Named, *, revision: str | None = None, token: str | None = None) -> None:
    """Refuse a name of no model at the cost of one small file.

    A file is left to whoever reads it: it may be a model in a format that is read elsewhere.

    Raises:
        UsageError: no such folder or repository, no access, offline and not in the cache, or no config.json.
        UnsupportedError: as `resolve`.
    """
    if not isinstance(name, FromFiles) and Path(text_of(name)).is_file():
        return
    local = find_local(name)
    if local is None:
        repo = text_of(name)
        with beside(f"looking for {repo}"):
            path = _snapshot(repo, revision, revision, usable_token(token), [CONFIG])
            if not (path / CONFIG).is_file():
                raise without_config(_files_of(repo, path.name, path), repo)
    elif gguf_files(local.path) is None:
        _check_has_config(local.path)


def read_local_config(folder: Path) -> Mapping[str, Any]:
    """The parsed `config.json` of a folder.

    Raises:
        UsageError: no JSON object, or a file that cannot be read.
    """
    content = read_whole(locate(folder, CONFIG), LONGEST)
    config = read_json(
        content, f"{printable(str(folder / CONFIG), 140)} cannot be read", unique_keys=False, constants=True
    )
    if not isinstance(config, dict):
        raise UsageError(f"{printable(str(folder / CONFIG))} must be a JSON object")
    return config


def find_local(name: Named) -> Source | None:
    """The files of an embedded model, folder, GGUF file or loaded model; None for what may be a Hub id.

    Raises:
        UsageError: another file, a path to nothing, or a model that was put together in memory.
        UnsupportedError: a file in a format that is not read.
    """
    if isinstance(name, FromFiles):
        if name.source.in_memory:
            raise UsageError(
                f"the model '{name.source.name}' was put together in memory; save it, and give the folder that it is in"
            )
        return name.source
    text = text_of(name)
    if text in EMBEDDED:
        return Source(text, folder(text), None)
    path = Path(text).expanduser()
    if path.is_dir():
        return Source(text, path.resolve(), None)
    if path.exists():
        if not is_gguf(path.name):
            raise single_file(text)
        # Its own name, whatever a link to it is called: parts lie beside it, and an output has its name.
        return Source(text, path.absolute(), None)
    if is_gguf(text):
        raise UsageError(f"there is no file {text}; give a GGUF file on this disk")
    if path.is_absolute() or text.startswith((".", "~")) or "\\" in text or text.count("/") > 1:
        raise UsageError(f"there is no folder {text}; give an existing folder, a GGUF file, a Hub id, or 'organism'")
    return None


def text_of(name: Named) -> str:
    """The name as text: of a loaded model, the name it was loaded by."""
    return name.source.name if isinstance(name, FromFiles) else os.fspath(name)


def read_hub_config(path: Path, files: Collection[str], repo: str) -> Mapping[str, Any]:
    """The parsed `config.json` of a repository that was downloaded into `path`.

    Raises:
        UsageError, UnsupportedError: the repository has none, as `without_config` says it; or no JSON object.
    """
    if CONFIG not in files:
        raise without_config(files, repo)
    config = read_json(read_whole(path / CONFIG), f"{CONFIG} of {repo}", unique_keys=False, constants=True)
    if not isinstance(config, dict):
        raise UsageError(f"{CONFIG} of {repo} must be a JSON object")
    return config


def _download(repo: str, revision: str | None, token: str | None, weights: bool, edited: bool) -> Source:
    """Download exactly the needed files of a repository into huggingface_hub's cache."""
    with beside(f"fetching {repo}"):
        return _fetched(repo, revision, token, weights, edited)


def _fetched(repo: str, revision: str | None, token: str | None, weights: bool, edited: bool) -> Source:
    # One file first: its snapshot's name is the commit, to which all that follows is held, and with it comes the
    # list of the repository's files.
    path = _snapshot(repo, revision, revision, token, [CONFIG, "README.md"])
    commit = path.name if path.parent.name == "snapshots" else revision
    files = _files_of(repo, commit, path)
    config = read_hub_config(path, files, repo)
    if edited:
        check_config(config)

    def fetch(names: Collection[str]) -> None:
        _snapshot(repo, commit, revision, token, names)

    def read(name: str) -> bytes:
        fetch([name])
        return bytes(read_whole(path / name))

    chosen: Chosen | None = choose(config, files, read, repo) if weights else None
    wanted = [*small_files(files, chosen), *(chosen.shards if chosen is not None else ())]
    _check_room(repo, commit, path, wanted)
    fetch(wanted)
    return Source(repo, path, commit)


def _snapshot(repo: str, commit: str | None, asked: str | None, token: str | None, names: Collection[str]) -> Path:
    with hub_call(repo, asked):
        from huggingface_hub import snapshot_download

        patterns = [escape(name) for name in names]
        return Path(snapshot_download(repo, revision=commit, token=token, allow_patterns=patterns))


def _check_room(repo: str, commit: str | None, path: Path, names: Collection[str]) -> None:
    """Refuse, before the first of them is fetched, files that are not cached and have no room there.

    Raises:
        UsageError: saying how much is missing.
    """
    with hub_call(repo, commit):
        from huggingface_hub import RepoFile, get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        try:
            tree = get_cached_repo_tree(repo, revision=commit)
        except CachedRepoTreeNotFoundError:
            return
        sizes = {each.path: each.size for each in tree if isinstance(each, RepoFile)}
    needed = sum(sizes.get(name, 0) for name in names if not (path / name).exists())
    check_space(path, needed, f"{repo} in the cache")


def _files_of(repo: str, commit: str | None, path: Path) -> tuple[str, ...]:
    """All files of a repository at a commit; if offline and never listed, the cached ones."""
    with hub_call(repo, commit):
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        try:
            names = [file.path for file in get_cached_repo_tree(repo, revision=commit)]
        except CachedRepoTreeNotFoundError:
            return list_files(path)[0]
    return tuple(sorted(name for name in names if not SKIPPED.intersection(name.split("/"))))
