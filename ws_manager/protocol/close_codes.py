"""The close codes (RFC 6455 section 7.4): what each means, and whether the agent should reconnect."""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """The close codes of the protocol. 4000 to 4999 are private (RFC 6455 section 7.4.2)."""

    DONE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    NO_STATUS = 1005
    LOST = 1006
    NOT_UTF_8 = 1007
    TOO_LARGE = 1009
    RESTARTING = 1012
    NOT_THIS_PROTOCOL = 4000
    TOKEN_EXPIRED = 4001
    BARRED = 4003
    TOO_SLOW = 4008
    REPLACED = 4009
    DISCONNECTED = 4010
    TOO_FAST = 4029


MEANINGS = {
    CloseCode.DONE: "done",
    CloseCode.GOING_AWAY: "going away",
    CloseCode.PROTOCOL_ERROR: "against RFC 6455",
    CloseCode.NO_STATUS: "closed without a code",
    CloseCode.LOST: "the connection was lost",
    CloseCode.NOT_UTF_8: "a text was not UTF-8",
    CloseCode.TOO_LARGE: "a frame was over the size limit",
    CloseCode.RESTARTING: "restarting",
    CloseCode.NOT_THIS_PROTOCOL: "not this protocol",
    CloseCode.TOKEN_EXPIRED: "the token has expired",
    CloseCode.BARRED: "barred or revoked",
    CloseCode.TOO_SLOW: "heartbeat timeout, or reading too slowly",
    CloseCode.REPLACED: "replaced by a newer socket",
    CloseCode.DISCONNECTED: "disconnected by an operator",
    CloseCode.TOO_FAST: "too many frames a second",
}

REFUSALS = frozenset({1003, 1007, 1009})
"""Codes with which a peer refuses a frame: its type, its text or its size."""

MISBEHAVIOUR = frozenset(
    {
        CloseCode.PROTOCOL_ERROR,
        CloseCode.NOT_UTF_8,
        CloseCode.TOO_LARGE,
        CloseCode.NOT_THIS_PROTOCOL,
        CloseCode.TOO_FAST,
    }
)
"""Codes with which the gateway closes if a peer breaks a rule. It reads nothing after that."""

WITHOUT_RECEIPTS = MISBEHAVIOUR | {CloseCode.REPLACED, CloseCode.DISCONNECTED, CloseCode.BARRED}
"""Codes after which a receipt no longer counts: the peer broke a rule, or the registration is no longer its own.

After other codes a receipt counts until the peer's Close frame.
"""

_FINAL = frozenset(
    {
        CloseCode.DONE,
        CloseCode.TOO_LARGE,
        CloseCode.NOT_THIS_PROTOCOL,
        CloseCode.BARRED,
        CloseCode.REPLACED,
        CloseCode.DISCONNECTED,
    }
)
_GOODBYES = frozenset({CloseCode.DONE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS})


def should_reconnect(code: int) -> bool:
    """Return whether an agent should reconnect after this close code."""
    return code not in _FINAL


def is_goodbye(code: int) -> bool:
    """Return whether a peer that closes with this code has finished, and not failed.

    1005 stands for a Close frame without a code, as a browser's `close()` sends it.
    """
    return code in _GOODBYES


def meaning(code: int, reason: str = "") -> str:
    """Return why a socket was closed: the reason, or the meaning of the code."""
    try:
        return reason or MEANINGS[CloseCode(code)]
    except ValueError:
        return "no reason given"


def describe(code: int, reason: str = "") -> str:
    """Return why a socket was closed, with the code, for people to read."""
    return f"{meaning(code, reason)} ({code})"
