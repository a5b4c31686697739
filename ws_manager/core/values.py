"""What may enter the ledger: names, content, metadata. Everything is checked here, before any lock."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from typing import Any, Optional

from ws_manager.errors import InvalidInput
from ws_manager.models import timestamp
from ws_manager.settings import MAX_CONTENT, MAX_METADATA, MAX_NAME, MAX_TIMEOUT


class NotJson(InvalidInput):
    """The text is not JSON at all; as opposed to JSON that cannot be kept."""


def check_name(value: object, what: str) -> str:
    """Return `value` if it can name a connection, an agent or a message type.

    Raises:
        InvalidInput: if it is no text of 1 to 128 characters, blank, or holds control characters.
    """
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(f"the {what} is empty", hint=f"give 1 to {MAX_NAME} characters")
    if len(value) > MAX_NAME:
        raise InvalidInput(f"the {what} has {len(value)} characters", hint=f"at most {MAX_NAME} are allowed")
    for character in value:
        category = unicodedata.category(character)
        # Half of a surrogate pair: what Python makes of bytes in an argument that are no UTF-8.
        if category == "Cs":
            raise InvalidInput(f"the {what} is not valid Unicode", hint="give it in UTF-8")
        # C0, DEL and C1.
        if category == "Cc":
            raise InvalidInput(
                f"the {what} has the control character U+{ord(character):04X}", hint="leave it out"
            )
    return value


def encode_content(content: object, limit: int = MAX_CONTENT) -> str:
    """Turn a message's content into compact JSON text.

    A `str` becomes a JSON string: it is never parsed. Objects with `to_dict()` are accepted at any depth.

    Raises:
        InvalidInput: if it is no JSON value (NaN, Infinity, a lone surrogate, an unknown type), nests too
            deeply, or has more than `limit` bytes.
    """
    return _encode(content, "message", limit)


def encode_metadata(metadata: object, limit: int = MAX_METADATA) -> str:
    """Turn metadata into compact JSON text.

    Raises:
        InvalidInput: if it is no mapping with text keys, no JSON, or has more than `limit` bytes.
    """
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        raise InvalidInput("metadata must be a JSON object", hint='for example {"region":"us-west"}')
    return _encode(dict(metadata), "metadata", limit)


def decode_json(text: str, what: str) -> Any:  # noqa: ANN401 - any JSON value
    """Parse strict JSON (RFC 8259: no NaN, no Infinity).

    Raises:
        NotJson: it is not JSON.
        InvalidInput: it nests too deeply, or has a number with thousands of digits.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise InvalidInput(f"the {what} nests too deeply", hint="flatten it") from None
    except _NoJsonValue as error:
        raise InvalidInput(f"the {what} is not JSON: {error}", hint="to send it as text, quote it") from None
    except json.JSONDecodeError as error:
        raise NotJson(f"the {what} is not JSON: {error}", hint="check the quotes of the shell") from None
    except ValueError as error:
        raise InvalidInput(f"the {what} cannot be kept: {error}", hint="send such numbers as text") from None


def check_limit(limit: object) -> int:
    """Return a number of rows.

    Raises:
        InvalidInput: if it is not a whole number of 0 or more.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit < 2**63:
        raise InvalidInput(f"not a limit: {limit!r}", hint="give a whole number, 0 or more")
    return limit


def check_timeout(seconds: object) -> float:
    """Return a time-out in seconds.

    Raises:
        InvalidInput: if it is no number, negative or not finite.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= MAX_TIMEOUT:
        raise InvalidInput(f"not a time-out: {seconds!r}", hint="give seconds, 0 or more")
    return float(seconds)


def check_latency(latency_ms: object) -> Optional[int]:
    """Return a round trip in whole milliseconds, or None where it was not measured.

    Raises:
        InvalidInput: if it is no number, negative or not finite.
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


def _encode(value: object, what: str, limit: int) -> str:
    try:
        text = _ENCODER.encode(value)
        size = len(text.encode("utf-8"))
    except RecursionError:
        raise InvalidInput(f"the {what} nests too deeply", hint="flatten it") from None
    except UnicodeEncodeError:
        raise InvalidInput(
            f"the {what} has half of a surrogate pair", hint="send valid Unicode text"
        ) from None
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the {what} is not JSON: {error}", hint="send JSON values only") from None
    if size > limit:
        raise InvalidInput(f"the {what} has {size} bytes", hint=f"at most {limit} are allowed")
    return text


def _plain(value: object) -> object:
    """Let `json` encode objects that can say what they hold, such as Stripe's."""
    to_dict = getattr(value, "to_dict", None)
    if callable(to_dict):
        return to_dict()
    raise TypeError(f"a value of type {type(value).__name__} has no JSON form")


class _NoJsonValue(ValueError):
    """NaN or an infinity."""


def _refuse_constant(name: str) -> None:
    raise _NoJsonValue(f"{name} is not a JSON value")


# Made once: in a batch, making them anew for each line costs as much as the line itself.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
