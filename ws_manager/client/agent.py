"""AgentClient: an agent in Python. It connects, comes back when the connection is lost, and confirms."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Optional, TypeVar, Union

import aiohttp

from ws_manager.client.agent_requests import Requests
from ws_manager.client.asking import Asks
from ws_manager.client.attempts import LedgerAttempts
from ws_manager.client.credentials import trust
from ws_manager.client.dialer import Dialer
from ws_manager.client.dialing import close_of
from ws_manager.client.ends import Ends
from ws_manager.client.handlers import Function, Handlers
from ws_manager.client.inbox import Inbox
from ws_manager.client.receipts import AgentMessage, Receipts
from ws_manager.client.refusals import read_refusals, terminal
from ws_manager.client.worker import new_worker
from ws_manager.errors import Conflict, GatewayUnavailable
from ws_manager.protocol.agent_session import AgentSession
from ws_manager.protocol.attempt_frames import pending_frame
from ws_manager.protocol.close_codes import CloseCode, describe, should_reconnect
from ws_manager.protocol.frames import Connected, Failure, Received, Result
from ws_manager.protocol.request_frames import broadcast_frame, send_frame
from ws_manager.strict_json import Json, encode

LAST_ACK_SECONDS = 2.0
"""Seconds that the answer to the gateway's close frame waits for an ack. A gateway waits 4 seconds for the answer."""

Self = TypeVar("Self", bound="AgentClient")


class AgentClient:
    """One agent's connection to a gateway. It reconnects when it is lost.

    Messages come in order. Each comes again after a reconnect until it is confirmed with `ack`, but one whose
    receipt was lost is not handed out twice. Use it once, as an async context manager::

        async with AgentClient("octavia", url="http://127.0.0.1:8765", ws_id="ws-001") as client:
            async for message in client:
                async with message:
                    print(message.content)

    Args:
        agent: the logical name.
        url: base address of the gateway, `http(s)` or `ws(s)`; or a function that finds it, called before
            every attempt in a thread of its own.
        ws_id: the connection to make or to resume. If None, the gateway makes one, and the client comes back under
            it.
        metadata: a JSON object for the registration, or its text as `Json`; None keeps what is there.
        on_connected: called with the greeting after each handshake.
        on_lost: called with the cause, in words, and the seconds until the next attempt; with `wait_for_gateway`
            also before the first connection.
        jitter: a function that returns a number from 0 to 1.
        token: the token to connect with, or a function that gives it, called before every attempt in a thread
            of its own, with which a token that has expired is replaced: a text that has expired ends the client.
            If it raises `GatewayUnavailable`, it is called again later.
            If None: `BLACKROAD_WS_TOKEN`, or on the gateway's own machine one made with the key beside the database.
        ca: a file of PEM certificates to check an `https` gateway's with, instead of the system's.
        direct: never use a proxy. Otherwise `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` decide, but for loopback
            addresses, which are always reached directly.
        clock: seconds that only grow.
        stay: leave with 1012, as one that will come back: the connection stays active until its heartbeat times
            out.
        wait_for_gateway: try the first connection until the gateway is there, instead of once.
        max_attempts: count in the ledger how often this agent begins each message, and set a message aside after this
            number of attempts, from 1 to 100, that failed or ended with their process. If None, messages never
            expire.

    Raises:
        InvalidInput: `ca`, the metadata or the number cannot be used.
    """

    def __init__(
        self,
        agent: str,
        *,
        url: Union[str, Callable[[], str]],
        ws_id: Optional[str] = None,
        metadata: Union[Mapping[str, Any], Json, None] = None,
        on_connected: Callable[[Connected], None] = lambda greeting: None,
        on_lost: Callable[[str, float], None] = lambda cause, delay: None,
        jitter: Callable[[], float] = random.random,
        token: Union[str, Callable[[], Optional[str]], None] = None,
        ca: Optional[Path] = None,
        direct: bool = False,
        clock: Callable[[], float] = time.monotonic,
        stay: bool = False,
        wait_for_gateway: bool = False,
        max_attempts: Optional[int] = None,
    ) -> None:
        self._stay = stay
        self._token = token
        self._session = AgentSession(ws_id)
        self._dialer = Dialer(
            self._session,
            agent,
            url,
            token,
            trust(ca),
            metadata=None if metadata is None else encode(metadata, "metadata"),
            worker=None if max_attempts is None else new_worker(max_attempts),
            direct=direct,
            patient=wait_for_gateway,
            on_connected=on_connected,
            on_lost=on_lost,
            jitter=jitter,
            clock=clock,
        )
        self._jitter = jitter
        self._http: Optional[aiohttp.ClientSession] = None
        self._websocket: Optional[aiohttp.ClientWebSocketResponse] = None
        self._task: Optional[asyncio.Task[None]] = None
        unready = GatewayUnavailable("this client is used without `async with`")
        self._leaving = False
        self._requests = Requests(self._write, jitter, unready)
        self._receipts = Receipts(self._session, self._write, lambda: self._dealt.set(), self._requests)
        attempts = (
            None if max_attempts is None else LedgerAttempts(self._requests, self._receipts, max_attempts)
        )
        self._inbox = Inbox(self._session, self._receipts, attempts, jitter, clock, unready)
        self._asks = Asks(self._requests, self._receipts, self._inbox.put)
        self._handlers = Handlers(attempts)

    @property
    def ws_id(self) -> Optional[str]:
        """The connection's id; None until the gateway has named it."""
        return self._session.ws_id

    async def __aenter__(self: Self) -> Self:
        """Connect; the first attempt is the only one that may fail.

        Raises:
            GatewayUnavailable: the gateway does not answer; not with `wait_for_gateway`.
            NotAuthorised: it does not let this agent in.
            Conflict: the ws_id belongs to another agent.
            InvalidInput: the address or a name cannot be used.
        """
        self._http = aiohttp.ClientSession(middlewares=(read_refusals,))
        # Here, not in __init__: before Python 3.10 an Event belongs to the loop in which it is made.
        self._dealt = asyncio.Event()
        try:
            self._websocket = await self._dialer.first(self._http)
        except BaseException:
            await self._http.close()
            raise
        self._inbox.open()
        self._requests.begin()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Close with 1000, which disconnects the connection, or with `stay` with 1012, and stop.

        A cancellation waits for that.
        """
        self._leaving = True
        left = GatewayUnavailable("this client has left")
        self._requests.end(left)
        self._asks.end(left)
        leaving = asyncio.ensure_future(self._leave())
        try:
            await asyncio.shield(leaving)
        finally:
            await asyncio.wait({leaving})

    async def _leave(self) -> None:
        try:
            # Before the reading is cancelled: aiohttp would end the connection at once then, and what the gateway has
            # sent meanwhile would make that a reset, and the Close frame would be lost.
            await self._say_goodbye()
            if self._task is not None:
                self._task.cancel()
                # Whatever the result is.
                await asyncio.wait({self._task})
                # Nothing more comes for whoever waits for a message.
                self._inbox.end(GatewayUnavailable("this client has left"))
            # It may have reconnected at the last moment.
            await self._say_goodbye()
        finally:
            if self._http is not None:
                await self._http.close()

    async def _say_goodbye(self) -> None:
        if self._websocket is not None:
            await self._websocket.close(code=CloseCode.RESTARTING if self._stay else CloseCode.DONE)

    async def __aiter__(self) -> AsyncIterator[AgentMessage]:
        """Give one message after the other, until `batch` raises."""
        while True:
            for message in await self.batch(1):
                yield message

    async def batch(self, limit: int) -> list[AgentMessage]:
        """Wait for a message, and return it with those that have come by then: at most `limit`, in order.

        With `max_attempts`, an attempt at each of them has begun.

        Raises:
            WsManagerError: the gateway has closed, and the agent must not come back: replaced, disconnected, …
        """
        return await self._inbox.begun(limit)

    async def ack(self, message: Received) -> None:
        """Confirm a message, and everything before it that was handed out and is not in an `async with` block.

        The ack ends before the first message that is in such a block, or has left one with an exception:
        the rest follows when that one is acked or rejected. Nothing happens if the message is settled already.

        While the connection is lost nothing is written: the gateway sends the message again, and it is
        confirmed then.
        """
        await self._receipts.ack(message)

    async def reject(self, message: Received, reason: str) -> None:
        """Refuse a message: the gateway sets it aside. Nothing happens if it is settled already."""
        await self._receipts.reject(message, reason)

    async def send(
        self,
        to: str,
        content: object,
        msg_type: str = "data",
        *,
        key: Optional[str] = None,
        timeout: Optional[float] = None,
        traceparent: Optional[str] = None,
    ) -> str:
        """Send to one connection, and return the msg_id once it is committed.

        The request has a key, and is written again after a reconnect until it is answered, so that it is done once.
        If the gateway is busy, it is repeated later.

        Args:
            to: the recipient's ws_id.
            content: any JSON value, or its text as `Json`.
            msg_type: the message's type.
            key: 1 to 255 characters of ASCII. A later request with the same key, also of another process with the
                same ws_id, is done once for 24 hours. None for a random one of 128 bits.
            timeout: seconds after which to give up; None to wait for as long as the client stays.
            traceparent: the W3C trace context of the work that sends it, which the receiver gets.

        Raises:
            GatewayUnavailable: there was no answer in time, or the client left before it: the message may have been
                committed or not.
            WsManagerError: the gateway refuses it, or has closed and the agent must not come back.
        """
        frame = partial(send_frame, to=to, content=content, msg_type=msg_type, traceparent=traceparent)
        result = await self._requests.ask(frame, key, timeout)
        return str(result.msg_id)

    async def ask(
        self,
        to: str,
        content: object,
        msg_type: str = "data",
        *,
        key: Optional[str] = None,
        traceparent: Optional[str] = None,
        timeout: Optional[float] = None,
    ) -> AgentMessage:
        """Ask a connection, and return the message that answers, confirmed.

        An answer that nobody waits for, because the time was over or another process asked, is handed out as an
        ordinary message, with `reply_to`.

        Args:
            to: the recipient's ws_id, or an agent: then its connection that was heard last.
            content: as in `send`, as the next two.
            msg_type: see there.
            key: see there. The answer still comes once.
            traceparent: see there.
            timeout: seconds for the request and the answer; None to wait for as long as the client stays.

        Raises:
            NoAnswer: it was asked, and no answer came in time.
            GatewayUnavailable, WsManagerError: as in `send`.
        """
        return await self._asks.ask(to, content, msg_type, key, traceparent, timeout)

    async def broadcast(
        self,
        content: object,
        *,
        agent: Optional[str] = None,
        msg_type: str = "broadcast",
        key: Optional[str] = None,
        timeout: Optional[float] = None,
        traceparent: Optional[str] = None,
    ) -> int:
        """Send to all active connections, or to one agent's, and return to how many, once it is committed.

        `key`, `timeout`, `traceparent` and the errors are those of `send`.
        """
        frame = partial(
            broadcast_frame, agent=agent, content=content, msg_type=msg_type, traceparent=traceparent
        )
        result = await self._requests.ask(frame, key, timeout)
        return int(result.recipients or 0)

    async def pending(self, timeout: Optional[float] = None) -> int:
        """Return how many messages wait for this connection's confirmation, counted up to 1,000.

        `timeout` and the errors are those of `send`.
        """
        result = await self._requests.ask(lambda ref, *, key: pending_frame(ref), None, timeout)
        return int(result.pending or 0)

    def on(
        self, msg_type: Optional[str] = None, *, concurrency: int = 1, attempts: Optional[int] = None
    ) -> Callable[[Function], Function]:
        """Let an async function handle messages, which it gets one at a time: a decorator for `run`.

        Args:
            msg_type: of the messages; None for those of every type without a handler of its own.
            concurrency: how many it handles at the same time. With 1, it gets them in order.
            attempts: after how many exceptions a message is rejected, with the name of the exception's type; None
                for 3, or for the `max_attempts` of the client. The pauses between them grow from 1 to 60 seconds.

        Raises:
            InvalidInput: the function is not async, there is a handler for the type already, a number is below 1, or
                the client has `max_attempts` already.
        """
        return partial(self._handlers.add, msg_type=msg_type, concurrency=concurrency, attempts=attempts)

    async def run(
        self,
        *,
        grace: float = 30.0,
        count: Optional[int] = None,
        idle_timeout: Optional[float] = None,
        until_empty: bool = False,
    ) -> None:
        """Give messages to the handlers that were added with `on`, until the gateway ends it or this is cancelled.

        A message is confirmed when its handler and those of all earlier messages have finished. A handler that raises
        ends nothing: that is logged as an error of the logger `ws_manager.client`, without the content, and the
        message is tried again, unless it was `MessageRejected`. A message without a handler is rejected.

        At the end the handlers that run may finish, and what has not begun stays pending.

        Args:
            grace: seconds for that. Then, or when this is cancelled again, they are cancelled.
            count: end after this number of messages; None for any number.
            idle_timeout: end when for this number of seconds there was nothing to do; None for never.
            until_empty: end when nothing is pending.

        Raises:
            InvalidInput: there is no handler, or it runs already.
            WsManagerError: as for `batch`.
        """
        ends = Ends(count, idle_timeout, self.pending if until_empty else None)
        await self._handlers.run(self._inbox.take, self._receipts, self._jitter, grace, ends)

    async def _run(self) -> None:
        try:
            while True:
                cause = await self._read()
                if self._leaving:
                    return
                self._websocket = await self._dialer.again(cause)
                self._inbox.clear()
                self._asks.clear()
                self._requests.repeat()
        except Exception as error:
            self._requests.end(error)
            self._asks.end(error)
            # Whatever it is, whoever waits for a message must get it.
            self._inbox.end(error)

    async def _read(self) -> str:
        """Read until the socket is gone, and return the cause in words.

        Raises:
            WsManagerError: the agent must not come back.
        """
        websocket, greeting = self._websocket, self._session.connected
        assert websocket is not None
        assert greeting is not None
        silence = max(greeting.heartbeat * 3, 1.0)
        while True:
            try:
                frame = await websocket.receive(timeout=silence)
            except asyncio.TimeoutError:
                await websocket.close()
                return f"nothing heard for {silence:.0f} s"
            if frame.type != aiohttp.WSMsgType.TEXT:
                break
            message = self._session.text(frame.data)
            if isinstance(message, Received):
                self._asks.take(message)
            elif isinstance(message, Result):
                self._requests.answer(message)
            elif isinstance(message, Failure):
                raise Conflict(f"the gateway reports: {message.message}")
            await self._receipts.write()
        code, reason = close_of(frame)
        cause = describe(code, reason)
        if frame.type == aiohttp.WSMsgType.CLOSE:
            await self._answer_close(websocket, code)
        error = terminal(code, cause, renewable=not isinstance(self._token, str))
        if error is not None:
            raise error
        if code == CloseCode.TOO_FAST:
            self._requests.slow_down()
        return cause

    async def _answer_close(self, websocket: aiohttp.ClientWebSocketResponse, code: int) -> None:
        """Answer the gateway's close frame as soon as the messages in work are acked: acks count until then."""
        with contextlib.suppress(asyncio.TimeoutError):
            while should_reconnect(code) and self._session.is_dealing:
                self._dealt.clear()
                await asyncio.wait_for(self._dealt.wait(), LAST_ACK_SECONDS)
        await websocket.close(code=CloseCode.DONE if code == CloseCode.NO_STATUS else code)

    async def _write(self, frame: str) -> None:
        """Write a frame, if there is a socket. The reader handles a lost connection."""
        websocket = self._websocket
        if websocket is not None and not websocket.closed:
            with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                await websocket.send_str(frame)
