"""What may enter the ledger: names, content, metadata. Everything is checked here, before any lock."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Optional

from ws_manager.errors import InvalidInput, TooLarge
from ws_manager.models import timestamp
from ws_manager.settings import MAX_CONTENT, MAX_METADATA, MAX_NAME, MAX_TIMEOUT
from ws_manager.strict_json import Json, encode
from ws_manager.text import unseen

_NOT_KEPT = re.compile("[\x00\ud800-\udfff]")


def check_name(value: object, what: str, *, known: bool = False) -> str:
    """Return `value` if it can name a connection, an agent or a message type.

    Args:
        value: the name.
        what: what it names, for errors.
        known: True if it only has to find what is there: a ledger may hold names with such characters from
            before they were refused.

    Raises:
        InvalidInput: it is not text of 1 to 128 characters, is blank, or holds control or invisible characters. No
            name has a NUL, also none that is known: PostgreSQL cannot hold it.
    """
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(f"the {what} is empty", hint=f"give 1 to {MAX_NAME} characters")
    if len(value) > MAX_NAME:
        raise InvalidInput(f"the {what} has {len(value)} characters", hint=f"at most {MAX_NAME} are allowed")
    if value.isascii() and value.isprintable():
        return value
    for found in unseen().finditer(value):
        number = ord(found.group())
        # Half of a surrogate pair: Python makes it of bytes in an argument that are not UTF-8.
        if 0xD800 <= number <= 0xDFFF:
            raise InvalidInput(f"the {what} is not valid Unicode", hint="give it in UTF-8")
        if not known or number == 0:
            # C0, DEL and C1.
            kind = "control" if number < 0xA0 else "invisible"
            raise InvalidInput(f"the {what} has the {kind} character U+{number:04X}", hint="leave it out")
    return value


def kept_reason(text: str) -> str:
    """Return a reason that a peer has given as every ledger can keep it.

    JSON can hold half of a surrogate pair, which UTF-8 cannot; and a NUL, which PostgreSQL cannot. They become
    U+FFFD: that something ended is written down whatever the peer says of it.
    """
    return _NOT_KEPT.sub("\ufffd", text)


def encode_content(content: object, limit: int = MAX_CONTENT) -> Json:
    """Turn a message's content into compact JSON text; `Json` is that already.

    Any other `str` becomes a JSON string: it is never parsed. Objects with `to_dict()` are accepted at any depth.

    Raises:
        InvalidInput: it is not a JSON value, exceeds the limits of `strict_json`, or has more than `limit` bytes.
    """
    return _bounded(encode(content, "message"), "message", limit)


def encode_metadata(metadata: object, limit: int = MAX_METADATA) -> Json:
    """Turn metadata into compact JSON text; `Json` (of an object) is that already.

    Raises:
        InvalidInput: it is not a mapping with text keys, not JSON, exceeds the limits of `strict_json`, or has more
            than `limit` bytes.
    """
    if isinstance(metadata, Json):
        return _bounded(metadata, "metadata", limit)
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        raise InvalidInput("metadata must be a JSON object", hint='for example {"region":"us-west"}')
    return _bounded(encode(dict(metadata), "metadata"), "metadata", limit)


def check_limit(limit: object) -> int:
    """Return a number of rows.

    Raises:
        InvalidInput: if it is not a whole number of 0 or more.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit < 2**63:
        raise InvalidInput(f"not a limit: {limit!r}", hint="give a whole number, 0 or more")
    return limit


def check_timeout(seconds: object) -> float:
    """Return a timeout in seconds.

    Raises:
        InvalidInput: it is not a number, is negative or not finite.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= MAX_TIMEOUT:
        raise InvalidInput(f"not a timeout: {seconds!r}", hint="give seconds, 0 or more")
    return float(seconds)


def check_latency(latency_ms: object) -> Optional[int]:
    """Return a round trip in whole milliseconds, or None if it was not measured.

    Raises:
        InvalidInput: it is not a number, is negative or not finite.
    """
    if latency_ms is None:
        return None
    if (
        isinstance(latency_ms, bool)
        or not isinstance(latency_ms, (int, float))
        or not 0 <= latency_ms < 2**63
    ):
        raise InvalidInput(f"not a latency: {latency_ms!r}", hint="give milliseconds, 0 or more")
    return round(latency_ms)


def check_timestamp(value: object, what: str) -> str:
    """Return an ISO 8601 timestamp in the ledger's fixed width; a naive one is UTC.

    Raises:
        InvalidInput: if it cannot be read.
    """
    # Imported here: only `pool.add` with a Connection made by hand comes this way.
    from datetime import datetime, timezone

    try:
        moment = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
        return timestamp(moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc))
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"{what} is not a timestamp: {value!r}", hint="write 2026-11-22T17:15:18+00:00"
        ) from None


def _bounded(text: Json, what: str, limit: int) -> Json:
    size = len(text) if text.isascii() else len(text.encode("utf-8"))
    if size > limit:
        raise TooLarge(f"the {what} has {size} bytes", hint=f"at most {limit} are allowed")
    return text
