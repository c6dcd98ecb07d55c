"""Where a model's files are: the embedded model, a local folder or the Hub."""

from dataclasses import dataclass
from pathlib import Path

from weight_edit.errors import UsageError, first_line

_SMALL_FILES = (
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
    "*.py",
    "*.md",
    "LICENSE*",
    "license*",
    "NOTICE*",
    "*.tiktoken",
)
_WEIGHTS = ("*.safetensors",)
# Second copies of the weights in other layouts: they double the download, and an edit would not reach them.
_OTHER_COPIES = ("original/*", "metal/*", "onnx/*", "consolidated*")


@dataclass(frozen=True)
class Source:
    """A model's files.

    Attributes:
        name: what the user called it.
        path: a local folder with config.json (the snapshot folder for a Hub id).
        revision: the commit for a Hub id; None for a folder and the embedded model.
    """

    name: str
    path: Path
    revision: str | None

    @property
    def public_name(self) -> str:
        """What may be published: a Hub id or "organism" as it is, but of a local folder only its last name."""
        name = self.name if self.on_hub else Path(self.name).name or self.path.resolve().name
        # A folder's name may be no Unicode, and a card or a manifest must be.
        return name.encode("utf-8", "replace").decode()

    @property
    def on_hub(self) -> bool:
        """Whether the files come from the Hub."""
        return self.revision is not None


def resolve(name: str | Path, *, revision: str | None = None, token: str | None = None, weights: bool = True) -> Source:
    """Find the files of `name`, downloading what is missing of a Hub repository.

    Args:
        name: "organism" (the embedded model), a folder, or a Hub id such as "org/model".
        revision: branch, tag or commit, for a Hub id only.
        token: Hub access token; None uses the one saved by `hf auth login`.
        weights: False leaves out the safetensors files.

    Raises:
        UsageError: no such folder or repository, no access, offline, or a folder without config.json.
    """
    text = str(name)
    if text == "organism":
        from weight_edit.organism import folder

        return _checked(Source(text, folder(), None), revision)
    path = Path(text).expanduser()
    if path.is_dir():
        return _checked(Source(text, path.resolve(), None), revision)
    if path.exists():
        raise UsageError(f"{text} is a file; give the folder that holds config.json and the weights")
    if path.is_absolute() or text.startswith((".", "~")) or "\\" in text or text.count("/") > 1:
        raise UsageError(f"there is no folder {text}; give an existing folder, a Hub id, or 'organism'")
    return _checked(_download(text, revision, token, weights), None)


def _checked(source: Source, revision: str | None) -> Source:
    if revision is not None:
        raise UsageError(f"{source.name} is a local folder and has no revision; drop the revision {revision}")
    if not (source.path / "config.json").is_file():
        raise UsageError(f"{source.path} has no config.json; give a model's folder in the Hugging Face layout")
    return source


def _download(repo: str, revision: str | None, token: str | None, weights: bool) -> Source:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f" at revision {revision}" if revision else ""
    try:
        folder = snapshot_download(
            repo,
            revision=revision,
            token=token,
            allow_patterns=[*_SMALL_FILES, *(_WEIGHTS if weights else ())],
            ignore_patterns=list(_OTHER_COPIES),
        )
    except HFValidationError as error:
        raise UsageError(f"{repo} is neither a folder nor a Hub id of the form org/model") from error
    except GatedRepoError as error:
        raise UsageError(
            f"{repo} is gated: accept its terms on https://huggingface.co/{repo}, "
            "then log in with `hf auth login` or pass a token"
        ) from error
    except RevisionNotFoundError as error:
        raise UsageError(f"{repo} has no revision {revision}; see the branches and tags on its page") from error
    except RepositoryNotFoundError as error:
        raise UsageError(
            f"there is no folder and no Hub repository {repo} that you can see; check the spelling, "
            "or pass a token if it is private"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError) as error:
        raise UsageError(
            f"there is no folder {repo}, and the Hub cannot be reached and no copy of {repo}{at} is cached; "
            "go online once, or give a local folder"
        ) from error
    except HfHubHTTPError as error:
        raise UsageError(f"the Hub refused {repo}{at}: {first_line(error)}; try again later") from error
    except OSError as error:
        raise UsageError(f"{repo}{at} could not be downloaded: {first_line(error)}") from error
    path = Path(folder)
    # A snapshot folder is named after its commit, which says more than a branch's name.
    return Source(repo, path, path.name if path.parent.name == "snapshots" else revision)
