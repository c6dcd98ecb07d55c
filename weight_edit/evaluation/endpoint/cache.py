"""Answers of servers kept by the digest of what was asked, so that a second run asks nothing."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.files import open_regular
from weight_edit.checkpoint.whole_file import write_whole
from weight_edit.errors import UsageError
from weight_edit.evaluation.endpoint.answer import ChatAnswer
from weight_edit.utils.cache_folder import cache_folder

_FORM = 1
"""Raised when what is kept of an answer changes."""

_MAX_BYTES = 64_000_000


@dataclass(frozen=True)
class AnswerCache:
    """A folder of answers, one file each; no file has a key or the text of a request in it.

    Attributes:
        folder: where they are; None keeps nothing.
    """

    folder: Path | None

    @classmethod
    def of_user(cls) -> "AnswerCache":
        """The cache in the tool's own folder, see `cache_folder`."""
        folder = cache_folder()
        return cls(None if folder is None else folder / "answers")

    def find(self, digest: str) -> ChatAnswer | None:
        """The kept answer; None if there is none, it is damaged, or it belongs to another user."""
        if self.folder is None:
            return None
        try:
            with open_regular(self._path(digest)) as file:
                if os.fstat(file.fileno()).st_uid not in (os.geteuid(), 0):
                    return None
                entry = json.loads(file.read(_MAX_BYTES))
            if entry["digest"] != digest or entry["sha256"] != _digest(entry["answer"]):
                return None
            return ChatAnswer.from_dict(entry["answer"], cached=str(entry["asked"]))
        except (UsageError, OSError, TypeError, KeyError, ValueError, RecursionError):
            return None

    def keep(self, digest: str, answer: ChatAnswer) -> None:
        """Keep an answer, whole or not at all.

        A folder that cannot be written is no error: the question is asked again next time.
        """
        if self.folder is None:
            return
        found = answer.to_dict()
        entry = {
            "digest": digest,
            "sha256": _digest(found),
            "asked": datetime.now(UTC).isoformat(timespec="seconds"),
            "answer": found,
        }
        path = self._path(digest)
        with suppress(OSError, UsageError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(path, json.dumps(entry))

    def _path(self, digest: str) -> Path:
        assert self.folder is not None
        # Thousands of files in one folder are slow to list.
        return self.folder / digest[:2] / f"{digest}.json"


def digest_of(address: str, body: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of a request: the server's address and all that is sent but for the key."""
    return _digest([_FORM, address, body])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
