"""The members of a frame, checked."""

from __future__ import annotations

from typing import Any, Optional, Union

from ws_manager.errors import InvalidInput


def field_of(frame: dict[str, Any], name: str, kind: Union[type, tuple[type, ...]]) -> Any:  # noqa: ANN401 - of `kind`
    """Return a member of a type.

    Raises:
        KeyError: it is missing.
        InvalidInput: it is of another type.
    """
    value = frame[name]
    if not isinstance(value, kind):
        raise InvalidInput(f"{name} is of the wrong type")
    return value


def optional_text(frame: dict[str, Any], name: str) -> Optional[str]:
    """Return a member that is text or null; errors are those of `field_of`."""
    return None if frame[name] is None else str(field_of(frame, name, str))


def seq_of(frame: dict[str, Any]) -> int:
    """Return the member `seq`.

    Raises:
        InvalidInput: it is not the number of a message.
    """
    seq = frame.get("seq")
    if isinstance(seq, bool) or not isinstance(seq, int) or not 0 <= seq < 2**63:
        raise InvalidInput("seq is not a message number")
    return seq


def text_of(frame: dict[str, Any], name: str, default: Optional[str] = None) -> str:
    """Return a member that is text, or a default if it is missing.

    Raises:
        InvalidInput: it is not text.
    """
    value = frame.get(name, default)
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is not text")
    return value


def given_text(frame: dict[str, Any], name: str) -> Optional[str]:
    """Return a member that is text; None if it is missing or null. Errors are those of `text_of`."""
    return None if frame.get(name) is None else text_of(frame, name)


def reason_of(frame: dict[str, Any], longest: int) -> str:
    """Return the member `reason`, cut after `longest` characters; errors are those of `text_of`."""
    return text_of(frame, "reason", "")[:longest]
