"""What a gateway answers, checked: whatever comes may be somebody else's answer."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Optional

from ws_manager.errors import GatewayUnavailable
from ws_manager.remedies import CHECK_URL_AND_PROXY
from ws_manager.strict_json import elements, members

_PROBLEM = "application/problem+json"


class Answer(NamedTuple):
    """A gateway's answer: its status, its JSON text, and whether it is that of an earlier request with this key."""

    status: int
    text: str
    replayed: bool

    @property
    def body(self) -> Any:  # noqa: ANN401 - any JSON value
        """The decoded text. A number may be rounded in it. A member that is missing raises `GatewayUnavailable`."""
        return json.loads(self.text, object_hook=_Form)

    @property
    def form(self) -> dict[str, str]:
        """The texts of its members; one that is missing raises `GatewayUnavailable`."""
        return _Form(members(self.text))

    def items(self) -> list[str]:
        """Return the texts of the elements of its member `items`."""
        text = self.form["items"]
        if not text.startswith("["):
            raise strange("has no list of items")
        return list(elements(text))


class _Form(dict[str, Any]):
    """An object in the answer of a gateway."""

    def __missing__(self, name: str) -> Any:  # noqa: ANN401 - never returns
        raise strange(f"lacks {name}")


def strange(what: str) -> GatewayUnavailable:
    """Return the error for an answer that no gateway gives; `what` goes on after "the answer of the gateway"."""
    return GatewayUnavailable(f"the answer of the gateway {what}", remedy=CHECK_URL_AND_PROXY)


def is_object(text: str) -> bool:
    """Return whether a text is a JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def problem_of(kind: str, text: str) -> Optional[dict[str, Any]]:
    """Return the problem (RFC 9457) that an answer is; None if it is not one of a gateway."""
    if not kind.startswith(_PROBLEM) or not is_object(text):
        return None
    problem: dict[str, Any] = json.loads(text)
    texts = (problem.get(name) for name in ("detail", "code"))
    return problem if all(isinstance(each, str) for each in texts) else None
