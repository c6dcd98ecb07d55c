"""Wrappers of Hub calls: bounded, errors become one line, progress bars obey --quiet."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from weight_edit.errors import FOREIGN_ERRORS, UsageError, first_line, plain
from weight_edit.organism.embedded import EMBEDDED
from weight_edit.redaction import cleaned, redacted, remember, stored_tokens, weakness
from weight_edit.utils.names import nearest
from weight_edit.utils.progress import is_drawn


def usable_token(token: str | None) -> str | None:
    """The cleaned token for huggingface_hub; None lets it take its stored one.

    Called wherever a token comes in, before anything is asked of the Hub.

    Raises:
        UsageError: the token, or the one that would be taken instead, has a character that none can have. The message
            says where it comes from and has no part of it.
    """
    from huggingface_hub import constants

    if token is None:
        kept = () if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else stored_tokens()
        where, chosen = next(iter(kept), ("", ""))
    else:
        remember(token)
        where, chosen = "`token` or HF_TOKEN", cleaned(token)
    wrong = weakness(chosen)
    if wrong is not None:
        raise UsageError(
            f"the access token (from {where}) cannot be sent: {wrong}; copy it again, whole", option="token"
        )
    return chosen or None if token is not None else None


_given: ContextVar[str | None] = ContextVar("given", default=None)


@contextmanager
def dataset_token(token: str | None) -> Iterator[None]:
    """Within the context data sets are asked for with this token; None is the stored one, as always.

    Prompt sets are read in many places, none of which has to hold a secret for it.
    """
    before = _given.set(token)
    try:
        yield
    finally:
        _given.reset(before)


def token_for_datasets() -> str | None:
    """The cleaned token of `dataset_token`; None lets the library take its stored one.

    Raises:
        UsageError: as `usable_token`.
    """
    return usable_token(_given.get())


@contextmanager
def hub_call(repo: str, revision: str | None) -> Iterator[None]:
    """Within the context, errors of huggingface_hub become a `UsageError` of one line.

    Args:
        repo: the Hub id, for messages.
        revision: what the user asked for; None is the default branch.

    Raises:
        UsageError: no such repository or revision, no access, offline, a full disk, a broken connection.
    """
    import httpx2
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
        XetDownloadError,
    )

    at = f" at revision {revision}" if revision else ""
    try:
        with hub_library():
            yield
    except HFValidationError as error:
        raise UsageError(f"{repo} is neither a folder nor a Hub id of the form org/model{_meant(repo)}") from error
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
            f"or pass a token if it is private{_meant(repo)}"
        ) from error
    except RemoteEntryNotFoundError as error:
        raise UsageError(f"a file of {repo}{at} is no longer there: {safe_line(error)}; start again") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError, httpx2.NetworkError) as error:
        # Downloads fall back to what is cached whatever the Hub said, and tell only that nothing is.
        if isinstance(error.__cause__, HfHubHTTPError):
            raise UsageError(f"the Hub refused {repo}{at}: {safe_line(error.__cause__)}; try again later") from error
        raise UsageError(
            f"there is no folder {repo}, and the Hub cannot be reached and no copy of {repo}{at} is cached; "
            f"go online once, or give a local folder{_meant(repo)}"
        ) from error
    except HfHubHTTPError as error:
        if error.response.status_code == 401:
            raise UsageError(
                f"the Hub does not accept the token for {repo}; log in again with `hf auth login`"
            ) from error
        raise UsageError(f"the Hub refused {repo}{at}: {safe_line(error)}; try again later") from error
    except (httpx2.HTTPError, httpx2.InvalidURL, XetDownloadError, *FOREIGN_ERRORS) as error:
        raise UsageError(f"{repo}{at} could not be downloaded: {safe_line(error)}") from error


def _meant(name: str) -> str:
    """A hint for a name unknown to the Hub: a similar embedded model or local folder."""
    near = nearest(name, [*EMBEDDED, *(path.parent.name for path in Path().glob("*/config.json"))])
    return f"; did you mean {near[0]!r}?" if near else ""


def safe_line(error: BaseException) -> str:
    """An error's message in one line, without signatures of URLs."""
    return unsigned(first_line(error))


def unsigned(text: str) -> str:
    """A message without the signatures of URLs."""
    # What follows the question mark of a download's address is as good as a password for a while.
    return re.sub(r"\?[^\s'\")]+", "", text)


@contextmanager
def hub_library() -> Iterator[None]:
    """Within the context, huggingface_hub has bounds, logs plain lines, and draws bars on a terminal unless --quiet."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    from weight_edit.hub.client import bounded_client

    for handler in logging.getLogger("huggingface_hub").handlers:
        # Added once, however often it is asked for.
        handler.addFilter(_in_plain_words)
    with bounded_client():
        if is_drawn() or are_progress_bars_disabled():
            yield
            return
        disable_progress_bars()
        try:
            yield
        finally:
            enable_progress_bars()


def _in_plain_words(entry: logging.LogRecord) -> bool:
    """Take tokens, signatures of addresses and control characters out of a line of the library's log."""
    entry.msg, entry.args = plain(unsigned(redacted(entry.getMessage()))), ()
    # A traceback has addresses and headers as they were sent.
    entry.exc_info = entry.exc_text = entry.stack_info = None
    return True
