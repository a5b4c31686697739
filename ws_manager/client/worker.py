"""What every worker needs, with an agent's socket or without: a name of its process, and pauses between attempts."""

from __future__ import annotations

import secrets
from typing import Callable

from ws_manager.errors import InvalidInput
from ws_manager.models import MOST_ATTEMPTS, MessageWorker

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a message is tried again: doubled with each attempt, up to the longest."""


LOGGED_REASON = 200
"""Characters of the first line of a reason that are logged. The ledger has all of it."""


def pause_after(attempt: int, jitter: Callable[[], float]) -> float:
    """Return the seconds between a failed attempt and the next.

    Args:
        attempt: the number of the failed one, from 1 on.
        jitter: a function that returns a number from 0 to 1.
    """
    return min(FIRST_PAUSE * 2.0 ** min(attempt - 1, 16), LONGEST_PAUSE) * (0.5 + jitter() / 2)


def new_worker(max_attempts: int) -> MessageWorker:
    """Return what a client says of its process: a random name, so that every process has its own.

    Raises:
        InvalidInput: the number is not from 1 to 100.
    """
    if isinstance(max_attempts, bool) or not 1 <= max_attempts <= MOST_ATTEMPTS:
        raise InvalidInput(f"max_attempts is a number from 1 to {MOST_ATTEMPTS}: {max_attempts!r}")
    return MessageWorker(secrets.token_hex(16), max_attempts)


def failure_line(msg_id: str, attempt: int, most: int, reason: str) -> str:
    """Return what is logged of a failed attempt.

    Args:
        msg_id: of the message.
        attempt: its number, from 1 on.
        most: how many there are at most.
        reason: why it has failed.
    """
    return f"message {msg_id}: attempt {attempt} of {most} failed: {reason.partition(chr(10))[0][:LOGGED_REASON]}"
