"""`listen --forward-to`: each message is a signed HTTP request, by https://www.standardwebhooks.com/."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Callable, Optional
from urllib.parse import urlsplit

import aiohttp

from ws_manager.cli.work.job import RAW, given
from ws_manager.client.handlers import AttemptFailed
from ws_manager.client.receipts import AgentMessage
from ws_manager.errors import Conflict, InvalidInput
from ws_manager.proxies import proxy_for
from ws_manager.text import read_text
from ws_manager.version import __version__

TIMEOUT_SECONDS = 30.0
"""For one request, answer included."""

LONGEST_PAUSE = 3600.0
"""The largest `Retry-After` that is kept, in seconds."""

_PREFIX = "whsec_"
_MOST_FILE = 64 * 1024
_MOST_ANSWER = 64 * 1024
_MOST_QUOTED = 1000
_GONE = 410
_OWN_HEADERS = ("content-length", "content-type", "host", "transfer-encoding", "traceparent")


class Forwarder:
    """Posts each message to an address: a handler of `AgentClient`, and an async context manager.

    Args:
        url: the address, `http` or `https`.
        form: the form of the body: see `job.given`.
        secrets: a file with the secrets that sign, one per line; None to sign nothing.
        headers: a file with further headers, one per line; None for none.
        on_gone: called with the error when the address answers 410: nothing more is to be sent.

    Raises:
        InvalidInput: the address, or what a file holds, cannot be used.
    """

    def __init__(
        self,
        url: str,
        form: str,
        secrets: Optional[Path],
        headers: Optional[Path],
        on_gone: Callable[[Conflict], None],
    ) -> None:
        _check_url(url)
        self._url = url
        self._form = form
        self._secrets = secrets
        self._headers = {} if headers is None else _read_headers(headers)
        self._on_gone = on_gone
        self._proxy = proxy_for(url)
        self._http: Optional[aiohttp.ClientSession] = None
        if secrets is not None:
            read_secrets(secrets)

    async def __aenter__(self) -> Forwarder:
        """Keep connections open between requests."""
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS), cookie_jar=aiohttp.DummyCookieJar()
        )
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Close them."""
        assert self._http is not None
        await self._http.close()

    async def __call__(self, message: AgentMessage) -> None:
        """Post a message. It has arrived if the answer has a status from 200 to 299 and comes whole."""
        fields = message.form()
        body = given(fields, self._form)
        body = body if self._form == RAW else body.rstrip(b"\n")
        try:
            status, pause, text = await self._post(body, await self._headers_of(message, body))
        except InvalidInput as error:
            raise AttemptFailed(error.message) from None
        except asyncio.TimeoutError:
            raise AttemptFailed(f"no answer within {TIMEOUT_SECONDS:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            # The type says what happened: the text of some has the address, and so perhaps a secret in its path.
            raise AttemptFailed(f"no answer: {type(error).__name__}") from None
        if 200 <= status <= 299:
            return
        reason = f"HTTP {status}: {text}" if text else f"HTTP {status}"
        if 300 <= status <= 399:
            reason = f"HTTP {status}: redirects are not followed"
        if status == _GONE:
            self._on_gone(
                Conflict(
                    "the address answers 410: it takes no messages any more",
                    hint="what it has not confirmed is pending; start listen again with another address",
                )
            )
        raise AttemptFailed(reason, pause)

    async def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int, float, str]:
        """Return the status, the seconds of `Retry-After`, and the beginning of the body."""
        assert self._http is not None
        async with self._http.post(
            self._url, data=body, headers=headers, allow_redirects=False, proxy=self._proxy
        ) as answer:
            found = bytearray()
            async for chunk in answer.content.iter_any():
                found += chunk
                if len(found) > _MOST_ANSWER:
                    break
            text = bytes(found[:_MOST_QUOTED]).decode("utf-8", "replace").strip()
            return answer.status, _pause(answer.headers.get("Retry-After", "")), text

    async def _headers_of(self, message: AgentMessage, body: bytes) -> dict[str, str]:
        kind = "text/plain; charset=utf-8" if self._form == RAW else "application/json"
        now = int(time.time())
        headers = {
            "User-Agent": f"ws-manager/{__version__}",
            **self._headers,
            "Content-Type": kind,
            "webhook-id": message.msg_id,
            "webhook-timestamp": str(now),
        }
        traceparent = message.traceparent
        if traceparent is not None:
            headers["traceparent"] = traceparent
        if self._secrets is not None:
            # In a thread, as every file.
            secrets = await asyncio.get_running_loop().run_in_executor(None, read_secrets, self._secrets)
            headers["webhook-signature"] = signature(secrets, message.msg_id, now, body)
        return headers


def signature(secrets: Sequence[bytes], msg_id: str, timestamp: int, body: bytes) -> str:
    """Return the header `webhook-signature`: a signature with each secret, version v1 of Standard Webhooks.

    Args:
        secrets: the keys.
        msg_id: the header `webhook-id`.
        timestamp: the header `webhook-timestamp`, in seconds since 1970.
        body: the request's.
    """
    signed = f"{msg_id}.{timestamp}.".encode() + body
    digests = (hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def read_secrets(path: Path) -> list[bytes]:
    """Return the secrets in a file: one per line, in base64, with `whsec_` before it or not.

    Raises:
        InvalidInput: the file cannot be read, or has something else in it.
    """
    secrets = []
    for line in _lines(path, "the secrets"):
        try:
            secrets.append(_decoded(line))
        except (ValueError, binascii.Error):
            secrets.append(b"")
    if not secrets or not all(secrets):
        raise InvalidInput(
            f"{path} does not hold secrets to sign with",
            hint="one per line, in base64, such as whsec_ and what this prints: openssl rand -base64 32",
        )
    return secrets


def _read_headers(path: Path) -> dict[str, str]:
    headers = {}
    for line in _lines(path, "the headers"):
        name, colon, value = line.partition(":")
        lower = name.lower()
        if (
            not colon
            or not name
            or not all(c.isascii() and (c.isalnum() or c in "-_.!#$%&'*+^`|~") for c in name)
        ):
            raise InvalidInput(f"{path} has a line that is no header", hint="write Name: value, one per line")
        if lower in _OWN_HEADERS or lower.startswith("webhook-"):
            raise InvalidInput(f"the header {name} is the command's own", hint=f"leave it out of {path}")
        headers[name] = value.strip()
    return headers


def _lines(path: Path, what: str) -> list[str]:
    try:
        with path.open("rb") as file:
            text = read_text(file, f"{what} in {path}", _MOST_FILE)
    except OSError as error:
        raise InvalidInput(f"cannot read {what} in {path}: {os.strerror(error.errno or 0)}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        # A port that is not a number raises.
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise InvalidInput(
            f"not an address to forward to: {url}", hint="for example http://127.0.0.1:8080/hook"
        )
    if "@" in parts.netloc:
        # It may be a secret, so the error does not quote it.
        raise InvalidInput(
            "the address to forward to has a user in it",
            hint="put an Authorization header into --header-file",
        )


def _pause(retry_after: str) -> float:
    """Return the seconds that a `Retry-After` asks for (RFC 9110 section 10.2.3); 0 without one."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), LONGEST_PAUSE)
    try:
        at = parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError):
        return 0.0
    return min(max(0.0, at - time.time()), LONGEST_PAUSE)


def _decoded(secret: str) -> bytes:
    text = secret[len(_PREFIX) :] if secret.startswith(_PREFIX) else secret
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
