"""Requests to the API of a gateway that runs in this event loop."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional
from urllib.parse import quote

import aiohttp
from yarl import URL

from tests.support import RunningGateway, within
from ws_manager.tokens import mint

KEY = b"the key of this test, not a secret"
NOTHING = object()


class Answer(NamedTuple):
    """An answer: its status, its body as it is decoded, its headers and its text."""

    status: int
    body: Any
    headers: Mapping[str, str]
    text: str


def token(*scopes: str, agent: str = "*", ws_id: Optional[str] = None) -> str:
    """A token with scopes; `admin` if none are named."""
    return mint(KEY, agent, ws_id=ws_id, scopes=scopes or ("admin",))


async def ask(
    running: RunningGateway,
    method: str,
    path: str,
    body: object = NOTHING,
    *,
    bearer: Optional[str] = None,
    raw: Optional[bytes] = None,
    key: Optional[str] = None,
    headers: Optional[Mapping[str, str]] = None,
) -> Answer:
    """Send a request; `path` is written as it goes over the wire."""
    sent = dict(headers or {})
    data: Any
    if bearer != "":
        sent["Authorization"] = f"Bearer {token() if bearer is None else bearer}"
    if key is not None:
        sent["Idempotency-Key"] = key
    data = raw if body is NOTHING else json.dumps(body).encode()
    if data is not None and len(data) > 1_000_000:
        data = io.BytesIO(data)
    if data is not None:
        sent.setdefault("Content-Type", "application/json")
    async with aiohttp.ClientSession() as session:
        url = URL(running.url + path, encoded=True)
        async with session.request(method, url, data=data, headers=sent) as response:
            text = await within(response.text())
            kind = response.content_type
            decoded = (
                json.loads(text)
                if text and kind in ("application/json", "application/problem+json")
                else None
            )
            return Answer(response.status, decoded, dict(response.headers), text)


def part(name: str) -> str:
    """A name as a part of a path."""
    return quote(name, safe="")
