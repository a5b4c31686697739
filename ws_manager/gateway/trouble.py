"""Logs a failure that repeats: once when it begins and once when it ends."""

from __future__ import annotations

import logging
from typing import Optional

from ws_manager.errors import LedgerUnreachable

_log = logging.getLogger("ws_manager.gateway")


class Trouble:
    """An operation that is tried again after it fails.

    Args:
        what: what the operation does; it completes the log line "cannot …".
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._cause: Optional[str] = None

    def began(self, error: Exception) -> None:
        """Report that the operation failed. Logs it if the cause is new."""
        # A database that is away is so in several words, one after the other.
        cause = error.cause if isinstance(error, LedgerUnreachable) else str(error)
        if cause != self._cause:
            self._cause = cause
            _log.error("cannot %s, will go on trying: %s", self._what, error)

    def ended(self) -> None:
        """Report that the operation succeeded. Logs it after a failure."""
        if self._cause is not None:
            self._cause = None
            _log.info("can %s again", self._what)
