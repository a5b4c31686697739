"""Every error that ws-manager raises on purpose.

The tree, and the stable `code` of each (it appears in JSON errors)::

    WsManagerError                error          the root: catch this to catch all of ours
    ├── InvalidInput              invalid        also a ValueError: an argument is not valid
    │   ├── TooLarge              invalid        content or metadata over the size limit
    │   └── InvalidSignature      signature      a webhook is not signed as it should be
    ├── NotFound                  not_found      no such connection, agent or message
    ├── Conflict                  conflict       another process or agent holds it
    │   └── KeyReused             key_reused     an idempotency key was used for another request
    ├── LedgerError               ledger         the database file cannot be used
    │   ├── LedgerBusy            busy           another process held the write lock too long
    │   │   └── LedgerUnreachable busy           the server that keeps it does not answer
    │   ├── LedgerFull            ledger         there is no room for it on the disk
    │   ├── LedgerReplaced        replaced       the file was moved, deleted or replaced underneath
    │   ├── LedgerSealed          sealed         it was moved elsewhere, or is an unfinished copy
    │   └── TransactionOpen       transaction    the caller's own transaction stands in the way
    ├── NotAuthorised             not_authorised no token, or one without the scope
    ├── NoAnswer                  no_answer      an ask has no answer yet
    ├── MissingExtra              missing_extra  a package is needed that is not installed
    └── GatewayUnavailable        unavailable    the gateway did not answer

Exit codes, HTTP statuses and hints are decided where an error is shown: see `ws_manager.cli.exit_codes`,
`ws_manager.cli.hints` and `ws_manager.gateway.http.errors`.
"""

from __future__ import annotations

import errno
from typing import Optional

from ws_manager.remedies import LIBRARY


class WsManagerError(Exception):
    """The root of ws-manager's errors.

    Args:
        message: one line that says what happened. It never holds message content or a secret.
        hint: one line that says what every reader can do next. It names no command and no option.
        remedy: a code of `ws_manager.remedies` for what each kind of reader can do in its own way.
        about: what the remedy is about: an identifier.

    Attributes:
        hint: as above; for a remedy, what a program can do. None where there is nothing to do.
    """

    code = "error"

    def __init__(
        self,
        message: str,
        *,
        hint: Optional[str] = None,
        remedy: Optional[str] = None,
        about: Optional[str] = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.about = about
        self.hint = LIBRARY.get(remedy) if hint is None and remedy is not None else hint

    @property
    def public_message(self) -> str:
        """The message for remote readers, who must not learn where the ledger is."""
        return self.message


class InvalidInput(WsManagerError, ValueError):
    """An argument is not valid. Nothing was changed."""

    code = "invalid"


class TooLarge(InvalidInput):
    """Content or metadata has more bytes than are allowed."""


class InvalidSignature(InvalidInput):
    """A webhook's signature or timestamp is not valid. The message quotes neither."""

    code = "signature"


class MissingExtra(WsManagerError):
    """A package that this needs is not installed. The hint says how to get it."""

    code = "missing_extra"


class NoAnswer(WsManagerError):
    """What was asked has no answer: none came in time, or there will be none."""

    code = "no_answer"


class NotFound(WsManagerError):
    """There is no such connection, agent or message."""

    code = "not_found"


class Conflict(WsManagerError):
    """Another process or agent holds what was asked for."""

    code = "conflict"


class KeyReused(Conflict):
    """An idempotency key was used for another request. Nothing was done."""

    code = "key_reused"


class LedgerError(WsManagerError):
    """The database file cannot be opened, read or written. Nothing was half written.

    Args:
        message: what happened, with the file's name.
        cause: what happened, without the file's name: for remote readers; None for the usual one of its class.
        hint, remedy, about: as for every error.
    """

    code = "ledger"
    usual_cause = "the ledger cannot be used at the moment"

    def __init__(
        self,
        message: str,
        *,
        cause: Optional[str] = None,
        hint: Optional[str] = None,
        remedy: Optional[str] = None,
        about: Optional[str] = None,
    ) -> None:
        super().__init__(message, hint=hint, remedy=remedy, about=about)
        self.cause = self.usual_cause if cause is None else cause

    @property
    def public_message(self) -> str:
        """What happened, without the ledger's name."""
        return self.cause


class LedgerBusy(LedgerError):
    """Another process held the write lock for longer than we wait."""

    code = "busy"


class LedgerUnreachable(LedgerBusy):
    """The server that keeps the ledger does not answer. A commit that was under way may have been done."""

    usual_cause = "the ledger's database cannot be reached"


class LedgerFull(LedgerError):
    """There is no room on the disk, or in the user's quota. It works again when there is."""

    usual_cause = "the disk is full"


class LedgerReplaced(LedgerError):
    """The database file was moved, deleted or replaced while it was open."""

    code = "replaced"


class LedgerSealed(LedgerError):
    """The ledger was moved elsewhere, or is a copy that was not finished yet: it can only be read."""

    code = "sealed"


class TransactionOpen(LedgerError):
    """The caller's own open transaction makes the call impossible."""

    code = "transaction"


class NotAuthorised(WsManagerError):
    """A token is missing, or does not allow what was asked."""

    code = "not_authorised"


class GatewayUnavailable(WsManagerError):
    """The gateway could not be reached, or closed the connection."""

    code = "unavailable"


def is_full(error: OSError) -> bool:
    """Return whether a file could not be written because there is no room: on the disk, or in the user's quota."""
    return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
