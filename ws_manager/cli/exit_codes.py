"""The exit codes. No other module decides one."""

from __future__ import annotations

from ws_manager.errors import (
    Conflict,
    GatewayUnavailable,
    InvalidInput,
    LedgerSealed,
    NoAnswer,
    NotAuthorised,
    NotFound,
    WsManagerError,
)

DONE = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
NOT_AUTHORISED = 4
PARTLY_DONE = 5
CONFLICT = 6
UNAVAILABLE = 7
INTERRUPTED = 130
CLOSED_PIPE = 141
TERMINATED = 143


class PartlyDone(WsManagerError):
    """Only a part is done: some messages are not confirmed, or some lines of a batch were not sent."""

    code = "partly_done"


_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (InvalidInput, USAGE),
    (NotFound, NOT_FOUND),
    (NotAuthorised, NOT_AUTHORISED),
    (PartlyDone, PARTLY_DONE),
    (NoAnswer, PARTLY_DONE),
    (Conflict, CONFLICT),
    (LedgerSealed, CONFLICT),
    (GatewayUnavailable, UNAVAILABLE),
    (KeyboardInterrupt, INTERRUPTED),
    (BrokenPipeError, CLOSED_PIPE),
)


def exit_code(error: BaseException) -> int:
    """Return the exit code for the error that ended a command; `FAILED` for an error without a code of its own."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return FAILED
