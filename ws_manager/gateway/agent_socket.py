"""One agent's socket: one task reads, one task writes; what they mean is `GatewaySession`'s business."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Callable, Optional

from aiohttp import ClientError, WSMessage, WSMsgType, web

from ws_manager.gateway.outbox import Outbox
from ws_manager.models import Closure
from ws_manager.protocol.close_codes import CloseCode, is_goodbye, meaning
from ws_manager.protocol.gateway_session import GatewaySession

STALLED_SECONDS = 5.0


class AgentSocket:
    """An open socket and its session.

    Args:
        agent: the agent that the ws_id belongs to.
        websocket: prepared, with `autoping=False` and without a heartbeat of its own.
        transport: of the request.
        session: the state.
        outbox: where the backlog is read and outcomes are told.
        now: a monotonic clock.
    """

    def __init__(
        self,
        agent: str,
        websocket: web.WebSocketResponse,
        transport: asyncio.Transport,
        session: GatewaySession,
        outbox: Outbox,
        now: Callable[[], float],
    ) -> None:
        self.agent = agent
        self.session = session
        self.recorded_at = now()
        self.logged_at: Optional[float] = None
        self._websocket = websocket
        self._transport = transport
        self._outbox = outbox
        self._now = now
        self._wake = asyncio.Event()
        self._pong: Optional[bytes] = None
        self._goodbye = ""
        self._buffered = 0
        self._shrunk_at = now()

    async def run(self, greeting: str) -> Closure:
        """Greet, then read and write until the socket is gone, and return how it ended."""
        writer = asyncio.create_task(self._write(greeting))
        try:
            await self._read()
        finally:
            # Our own close is the writer's last act: let it finish, but never wait for a blocked one.
            if self.session.close_with is None:
                writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
            self._tell()
        return self._closure()

    def wake(self) -> None:
        """There may be something to write."""
        self._wake.set()

    def close(self, code: int, reason: str) -> None:
        """Close the socket; the first code stays."""
        self.session.close(code, reason)
        self._wake.set()

    def abort(self) -> None:
        """Drop the connection at once: a blocked write ends only so."""
        self._transport.abort()

    def tick(self, now: float) -> None:
        """Let time pass: heartbeats, and a peer that does not read."""
        buffered = self._transport.get_write_buffer_size()
        if not buffered or buffered < self._buffered:
            self._shrunk_at = now
        self._buffered = buffered
        if now - self._shrunk_at > STALLED_SECONDS:
            self.session.close(CloseCode.TOO_SLOW, "reads too slowly")
            self.abort()
        elif self.session.tick(now):
            self._wake.set()

    async def _read(self) -> None:
        session = self.session
        while True:
            message: WSMessage = await self._websocket.receive()
            if message.type == WSMsgType.PONG:
                session.pong(bytes(message.data), self._now())
            elif message.type == WSMsgType.TEXT:
                session.text(message.data, self._now())
            elif message.type == WSMsgType.PING:
                # RFC 6455 section 5.5.3: only the most recent Ping has to be answered.
                self._pong = bytes(message.data)
                session.sign_of_life(self._now())
            elif message.type == WSMsgType.BINARY:
                session.close(CloseCode.NOT_THIS_PROTOCOL, "binary frame")
            else:
                if message.type == WSMsgType.CLOSE and message.extra:
                    self._goodbye = message.extra
                return
            self._tell()
            if self._pong is not None or session.has_work:
                self._wake.set()

    async def _write(self, greeting: str) -> None:
        try:
            await self._websocket.send_str(greeting)
            while self.session.close_with is None:
                await self._flush()
                await self._wake.wait()
                self._wake.clear()
            code, reason = self.session.close_with
            await self._websocket.close(code=code, message=reason.encode("utf-8")[:120])
        except (ClientError, ConnectionError):
            # The peer is gone. The reader sees it too, and what was written stays unconfirmed.
            self._transport.abort()

    async def _flush(self) -> None:
        session, websocket = self.session, self._websocket
        while session.close_with is None:
            if self._pong is not None:
                payload, self._pong = self._pong, None
                await websocket.pong(payload)
            frames = session.next_write()
            for frame in frames:
                await websocket.send_str(frame)
            ping = session.next_ping(self._now())
            if ping is not None:
                await websocket.ping(ping)
            if session.wants_backlog:
                messages, reached = await self._outbox.backlog(
                    session.ws_id, session.cursor, session.backlog_limit
                )
                session.take_backlog(messages, reached, self._outbox.position)
            elif not frames:
                return

    def _tell(self) -> None:
        if self.session.outcomes:
            outcomes, self.session.outcomes = self.session.outcomes, []
            self._outbox.tell(outcomes)

    def _closure(self) -> Closure:
        session = self.session
        if session.close_with is not None:
            code, reason = session.close_with
            return Closure(session.ws_id, session.epoch, code, reason, ended=False)
        code = self._websocket.close_code or CloseCode.LOST
        error = self._websocket.exception()
        reason = meaning(code, str(error) if error else self._goodbye)
        return Closure(session.ws_id, session.epoch, code, reason, ended=is_goodbye(code) and error is None)
