"""The errors that a gateway reports, as the classes with which they were raised there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ws_manager import errors, remedies
from ws_manager.errors import NotAuthorised, WsManagerError
from ws_manager.remedies import CHECK_TOKEN


def error_of(problem: Mapping[str, Any]) -> WsManagerError:
    """Return the error that a problem (RFC 9457), or the answer to a line of a batch, describes."""
    kind = _KINDS.get(problem["code"], WsManagerError)
    message, hint, remedy = (
        problem.get("detail", problem.get("message")),
        problem.get("hint"),
        problem.get("remedy"),
    )
    if isinstance(remedy, str) and remedy in _REMEDIES:
        return kind(str(message), remedy=remedy, about=problem.get("about"))
    if hint is None and kind is NotAuthorised:
        return kind(str(message), remedy=CHECK_TOKEN)
    return kind(str(message), hint=hint)


def _all_kinds(kind: type[WsManagerError]) -> Iterator[type[WsManagerError]]:
    yield kind
    for each in kind.__subclasses__():
        if each.__module__ == errors.__name__:
            yield from _all_kinds(each)


# A code that several classes have stands for the first, the most general one.
_KINDS = {kind.code: kind for kind in reversed(list(_all_kinds(WsManagerError)))}
_REMEDIES = frozenset(
    value for name, value in vars(remedies).items() if name.isupper() and isinstance(value, str)
)
