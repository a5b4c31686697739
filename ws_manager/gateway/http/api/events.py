"""`GET /v1/events`: what happens in the ledger, as server-sent events (HTML, section 9.2).

Nothing is queued in memory: each stream reads the ledger on from its own cursor, when its client has taken what came
before. The id of an event is its cursor, so a client that comes back with `Last-Event-ID` misses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from typing import Any, Callable, Optional

from aiohttp import web

from ws_manager.core.ledger import Ledger
from ws_manager.core.moments import parse_moment
from ws_manager.core.read.feed import News
from ws_manager.errors import GatewayUnavailable, LedgerError, LedgerUnreachable, NotAuthorised
from ws_manager.gateway.bell import Bell
from ws_manager.gateway.delivery.ledger_threads import LedgerThread
from ws_manager.gateway.http.api.gate import Gate
from ws_manager.gateway.http.api.parsing import parse_query, query_of
from ws_manager.gateway.http.api.route import Parameter
from ws_manager.gateway.http.api.schemas import KNOWN_NAME, MOMENT
from ws_manager.gateway.http.api.slots import Slots
from ws_manager.gateway.http.api.view import View
from ws_manager.repository.findings import FeedEntry
from ws_manager.tokens import Claims

PARAMETERS = (
    Parameter("kind", KNOWN_NAME, "only events of this kind, such as confirmed or closed", repeated=True),
    Parameter("agent", KNOWN_NAME, "only events of this agent's connections"),
    Parameter("ws_id", KNOWN_NAME, "only events of this connection"),
    Parameter("since", MOMENT, "begin with what has happened since then: 2h (ago), or RFC 3339 in UTC"),
)
COMMENT_SECONDS = 15.0
"""Seconds after which an idle stream gets a comment, so that nothing on the way takes it for dead."""

MOST_STREAMS, MOST_OF_A_TOKEN = 200, 20
"""Streams at the same time: of one process, and with one token."""

_BATCH = 200
_LOOK_SECONDS = 1.0
_RETRY_MS = 1000
_LONGEST_CURSOR = 100


class EventStreams:
    """The streams of one gateway.

    Args:
        gate: lets requests in.
        ledger: a thread with the ledger, of its own: many streams must not delay messages.
        bell: rings when something is new in the ledger.
        clock: the time of day, in seconds since 1970; tokens expire by it.
    """

    def __init__(
        self, gate: Gate, ledger: LedgerThread, bell: Bell, clock: Callable[[], float] = time.time
    ) -> None:
        self._gate = gate
        self._ledger = ledger
        self._clock = clock
        self._bell = bell
        self._slots = Slots("event streams", MOST_STREAMS, MOST_OF_A_TOKEN)
        self._stopping = False

    def __len__(self) -> int:
        """Return the number of open streams."""
        return len(self._slots)

    def add_to(self, application: web.Application) -> None:
        """Add the route to an application."""
        application.router.add_route("GET", "/v1/events", self._gate.handler(self._handle))

    def stop(self) -> None:
        """End every stream: its client comes back."""
        self._stopping = True
        self._bell.ring()

    async def close(self) -> None:
        """Close the ledger."""
        await self._ledger.close()

    async def _handle(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        claims = await self._gate.enter(request, headers)
        claims.require("read")
        given = parse_query(query_of(request), PARAMETERS)
        if self._stopping:
            raise GatewayUnavailable("the gateway is stopping", hint="come back later")
        with self._slots.taken(claims):
            await self._ledger.open()
            cursor = await self._start(request, given, claims)
            return await self._stream(request, given, claims, cursor, headers)

    async def _start(self, request: web.Request, given: dict[str, Any], claims: Claims) -> str:
        last = request.headers.get("Last-Event-ID")
        if last is not None:
            # One that is not a cursor begins with a gap.
            return last[:_LONGEST_CURSOR]
        since = parse_moment(given["since"]) if "since" in given else None
        return await self._ledger.run(lambda ledger: self._gate.still_open(ledger, claims).feed.start(since))

    def _read(
        self, claims: Claims, given: dict[str, Any], cursor: str, ledger: Ledger
    ) -> tuple[News, list[str]]:
        return _read(claims, given, cursor, self._gate.still_open(ledger, claims))

    async def _stream(
        self,
        request: web.Request,
        given: dict[str, Any],
        claims: Claims,
        cursor: str,
        headers: dict[str, str],
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                **headers,
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
            }
        )
        await response.prepare(request)
        loop = asyncio.get_running_loop()
        written = loop.time()
        with contextlib.suppress(ConnectionError, NotAuthorised, LedgerError):
            await response.write(f"retry: {_RETRY_MS}\nid: {_one_line(cursor)}\n\n".encode())
            while not self._stopping and claims.expires_at > self._clock():
                ringing = self._bell.next
                try:
                    news, texts = await self._ledger.run(functools.partial(self._read, claims, given, cursor))
                except LedgerUnreachable:
                    # The stream goes on where it was. A browser would not come back to one that is refused.
                    await asyncio.sleep(_LOOK_SECONDS)
                    continue
                if news.gap:
                    texts.insert(0, f"id: {news.start}\nevent: gap\ndata: {{}}\n\n")
                cursor = news.cursor
                if texts:
                    # It returns when the client has taken what came before.
                    await response.write("".join(texts).encode("utf-8"))
                    written = loop.time()
                elif loop.time() - written >= COMMENT_SECONDS:
                    await response.write(f"id: {cursor}\n:\n\n".encode())
                    written = loop.time()
                if not news.entries:
                    await self._bell.heard(ringing, _LOOK_SECONDS)
        return response


def _read(claims: Claims, given: dict[str, Any], cursor: str, ledger: Ledger) -> tuple[News, list[str]]:
    news = ledger.feed.after(cursor, _BATCH)
    view = View(ledger, claims)
    agents: dict[Optional[str], Optional[str]] = {}

    def agent_of(ws_id: Optional[str]) -> Optional[str]:
        if ws_id not in agents:
            connection = None if ws_id is None else ledger.find(ws_id)
            agents[ws_id] = None if connection is None else connection.agent
        return agents[ws_id]

    def wanted(entry: FeedEntry) -> bool:
        kinds, agent, ws_id = given.get("kind"), given.get("agent"), given.get("ws_id")
        return (
            (kinds is None or entry.kind in kinds)
            and (ws_id is None or entry.ws_id == ws_id)
            and (agent is None or agent_of(entry.ws_id) == agent)
            and (view.owns(entry.ws_id) or view.owns(entry.sender_id))
        )

    return news, [_text(entry, agent_of(entry.ws_id)) for entry in news.entries if wanted(entry)]


def _text(entry: FeedEntry, agent: Optional[str]) -> str:
    data = {"kind": entry.kind, "at": entry.at, "ws_id": entry.ws_id, "agent": agent, "msg_id": entry.msg_id}
    if entry.seq is None:
        data["detail"] = entry.detail
    else:
        data |= {"seq": entry.seq, "sender_id": entry.sender_id, "broadcast_id": entry.broadcast_id}  # type: ignore[dict-item]
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"id: {entry.cursor}\nevent: {entry.kind}\ndata: {text}\n\n"


def _one_line(cursor: str) -> str:
    return "" if any(character in "\r\n\0" for character in cursor) else cursor
