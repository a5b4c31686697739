"""The `traceparent` of a message: the W3C trace that its sender is part of (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import re
from typing import Optional

from ws_manager.errors import InvalidInput

# The trace-id and the parent-id, neither all zeros, and the flags.
_IDS = "(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"

TRACEPARENT_FORM = f"(00-{_IDS}|(?!00|ff)[0-9a-f]{{2}}-{_IDS}(-[!-~]*)?)"
"""What is accepted: version 00, or a later one, which may go on behind the flags."""

_LENGTH = 55
_SAMPLED = 1


def check_traceparent(value: object) -> Optional[str]:
    """Return a `traceparent` as it is kept: in the form of version 00; None if it is None.

    One of version 00 stays as it is. Of a later version nobody here can know what more it means, and a receiver may
    know it as little: the recommendation has its three known parts read, and written in the latest form that the
    reader knows. So the trace-id, the parent-id and the flag `sampled` are kept, and the rest is left out. Each kept
    `traceparent` has 55 characters, and every receiver can read it.

    Raises:
        InvalidInput: it is not one.
    """
    kept = valid_traceparent(value) if isinstance(value, str) else None
    if kept is None and value is not None:
        raise InvalidInput(
            "the traceparent is not valid",
            hint="it is 00-<trace-id, 32 hex digits>-<parent-id, 16 hex digits>-<flags, 2 hex digits>, in lower case",
        )
    return kept


def valid_traceparent(text: str) -> Optional[str]:
    """Return the `traceparent` of a header or of the environment as it is kept; None if it is invalid.

    The recommendation wants an invalid one to be ignored there: it may come from anybody on the way.
    """
    if re.fullmatch(TRACEPARENT_FORM, text) is None:
        return None
    if text.startswith("00-"):
        return text
    flags = int(text[_LENGTH - 2 : _LENGTH], 16) & _SAMPLED
    return f"00{text[2 : _LENGTH - 2]}{flags:02x}"
