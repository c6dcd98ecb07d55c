"""When and after how long a request is sent again."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

TRANSIENT = frozenset({408, 409, 425, 429})
"""Statuses below 500 that another try may not meet."""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How often a request is sent, and how long is waited in between.

    Attributes:
        tries: how often it is sent at most.
        first: seconds before the second try; each later one waits twice as long, times a random number from 0.5 to 1.
        most: the longest wait in seconds, also where the server asks for a longer one.
    """

    tries: int = 6
    first: float = 1.0
    most: float = 60.0

    def wait(self, failed: int, asked: float | None = None) -> float:
        """Seconds to wait after so many failed tries.

        Args:
            failed: 1 after the first.
            asked: seconds that the server asks for (`Retry-After`).
        """
        # Different for each request: those that failed together shall not come back together.
        backoff = self.first * 2 ** (failed - 1) * random.uniform(0.5, 1)
        return min(self.most, backoff if asked is None else max(asked, 0) + backoff / 2)


RETRY = Retry()


def is_transient(status: int) -> bool:
    """Whether another try may succeed."""
    return status in TRANSIENT or status >= 500


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a `Retry-After` header asks for, as a number or as a date (RFC 9110); None if it says neither."""
    if value is None:
        return None
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            then = parsedate_to_datetime(text)
        except ValueError:
            return None
        if then.tzinfo is None:
            then = then.replace(tzinfo=UTC)
        seconds = (then - (now or datetime.now(UTC))).total_seconds()
    # NaN compares with nothing.
    return max(0.0, seconds) if seconds == seconds else None
