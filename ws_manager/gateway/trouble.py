"""Failures that last: logged when they begin and when they end, not at every attempt."""

from __future__ import annotations

import logging
from typing import Optional

_log = logging.getLogger("ws_manager.gateway")


class Trouble:
    """Something that may fail many times in a row.

    Args:
        what: what fails, as it follows "cannot".
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._cause: Optional[str] = None

    def began(self, error: Exception) -> None:
        """Note a failure."""
        if str(error) != self._cause:
            self._cause = str(error)
            _log.error("cannot %s, will go on trying: %s", self._what, error)

    def ended(self) -> None:
        """Note a success."""
        if self._cause is not None:
            self._cause = None
            _log.info("can %s again", self._what)
