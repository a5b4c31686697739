"""AgentClient: an agent in Python. It connects, comes back when the connection is lost, and confirms."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Optional, TypeVar, Union

import aiohttp
from yarl import URL

from ws_manager.client.credentials import own_token, trust
from ws_manager.client.dialing import HANDSHAKE_SECONDS, dial
from ws_manager.client.refusals import failed, read_refusals
from ws_manager.errors import Conflict, GatewayUnavailable, InvalidInput, NotAuthorised
from ws_manager.protocol.agent_session import AgentSession
from ws_manager.protocol.close_codes import CloseCode, describe, should_reconnect
from ws_manager.protocol.frames import (
    Connected,
    Failure,
    Received,
    Result,
    broadcast_frame,
    send_frame,
)
from ws_manager.remedies import CHECK_URL, PUT_TOKEN_IN_FILE
from ws_manager.strict_json import Json, encode

FIRST_DELAY, LONGEST_DELAY = 0.25, 15.0
LAST_ACK_SECONDS = 2.0
"""Seconds that the answer to the gateway's close frame waits for an ack. A gateway waits 4 seconds for the answer."""

HEALTHY_SECONDS = 60.0
"""After a connection of this many seconds, the delays between attempts start over."""

# For each of its methods.
_OWN_SCOPES = ("connect", "send", "broadcast")


Self = TypeVar("Self", bound="AgentClient")


class AgentClient:
    """One agent's connection to a gateway. It reconnects when it is lost.

    Messages come in order. Each comes again after a reconnect until it is confirmed with `ack`, but one whose
    receipt was lost is not handed out twice. Use it as an async context manager::

        async with AgentClient("octavia", url="http://127.0.0.1:8765", ws_id="ws-001") as client:
            async for message in client:
                print(message.content)
                await client.ack(message)

    Args:
        agent: the logical name.
        url: base address of the gateway, `http(s)` or `ws(s)`; or a function that finds it, called before
            every attempt in a thread of its own.
        ws_id: the connection to make or to resume. If None, the gateway makes one, and the client comes back under
            it.
        metadata: a JSON object for the registration, or its text as `Json`; None keeps what is there.
        on_connected: called with the greeting after each handshake.
        on_lost: called with the cause, in words, and the seconds until the next attempt.
        jitter: a function that returns a number from 0 to 1.
        token: the token to connect with, or a function that gives it, called before every attempt in a thread
            of its own, with which a token that has expired is replaced. If None: `BLACKROAD_WS_TOKEN`, or on
            the gateway's own machine one made with the key beside the database, if there is one.
        ca: a file of PEM certificates to check an `https` gateway's with, instead of the system's.
        direct: never use a proxy. Otherwise `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` decide, but for loopback
            addresses, which are always reached directly.
        clock: seconds that only grow.
        stay: leave with 1012, as one that will come back: the connection stays active until its heartbeat times
            out.

    Raises:
        InvalidInput: `ca` or the metadata cannot be used.
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
    ) -> None:
        self._agent = agent
        self._stay = stay
        self._direct = direct
        self._clock = clock
        self._attempt = 0
        self._connected_at = 0.0
        self._token = token
        self._tls = trust(ca)
        self._url = url
        self._metadata = None if metadata is None else encode(metadata, "metadata")
        self._on_connected = on_connected
        self._on_lost = on_lost
        self._jitter = jitter
        self._session = AgentSession(ws_id)
        self._http: Optional[aiohttp.ClientSession] = None
        self._websocket: Optional[aiohttp.ClientWebSocketResponse] = None
        self._task: Optional[asyncio.Task[None]] = None
        self._messages: deque[Received] = deque()
        self._ended: Optional[Exception] = None
        self._leaving = False
        self._requests: dict[Any, asyncio.Future[Result]] = {}
        self._last_ref = 0

    @property
    def ws_id(self) -> Optional[str]:
        """The connection's id; None until the gateway has named it."""
        return self._session.ws_id

    async def __aenter__(self: Self) -> Self:
        """Connect; the first attempt is the only one that may fail.

        Raises:
            GatewayUnavailable: the gateway does not answer.
            NotAuthorised: it does not let this agent in.
            Conflict: the ws_id belongs to another agent.
            InvalidInput: the address or a name cannot be used.
        """
        self._http = aiohttp.ClientSession(middlewares=(read_refusals,))
        # Here, not in __init__: before Python 3.10 an Event belongs to the loop in which it is made.
        self._arrived = asyncio.Event()
        self._dealt = asyncio.Event()
        try:
            self._websocket = await self._connect()
        except BaseException:
            await self._http.close()
            raise
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
        self._lose_requests()
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
            # It may have reconnected at the last moment.
            await self._say_goodbye()
        finally:
            if self._http is not None:
                await self._http.close()

    async def _say_goodbye(self) -> None:
        if self._websocket is not None:
            await self._websocket.close(code=CloseCode.RESTARTING if self._stay else CloseCode.DONE)

    async def __aiter__(self) -> AsyncIterator[Received]:
        """Give one message after the other, until `batch` raises."""
        while True:
            for message in await self.batch(1):
                yield message

    async def batch(self, limit: int) -> list[Received]:
        """Wait for a message, and return it with those that have come by then: at most `limit`, in order.

        Raises:
            WsManagerError: the gateway has closed, and the agent must not come back: replaced, disconnected, …
        """
        # Yield to other tasks: if messages keep coming, nothing below waits.
        await asyncio.sleep(0)
        while not self._messages:
            if self._ended is not None:
                raise self._ended
            self._arrived.clear()
            await self._arrived.wait()
        taken = [self._messages.popleft() for _ in range(min(limit, len(self._messages)))]
        for message in taken:
            self._session.handed_out(message)
        return taken

    async def ack(self, message: Received) -> None:
        """Confirm a message, and everything before it.

        While the connection is lost nothing is written: the gateway sends the message again, and it is
        confirmed then.
        """
        self._session.ack(message)
        self._dealt.set()
        await self._write_answers()

    async def reject(self, message: Received, reason: str) -> None:
        """Refuse a message: the gateway sets it aside."""
        self._session.reject(message, reason)
        self._dealt.set()
        await self._write_answers()

    async def send(self, to: str, content: object, msg_type: str = "data") -> str:
        """Send to one connection, and return the msg_id once it is committed.

        Raises:
            WsManagerError: the gateway refuses it, or was lost before it answered: then it may have been
                committed or not.
        """
        result = await self._request(lambda ref: send_frame(ref, to, content, msg_type))
        return str(result.msg_id)

    async def broadcast(
        self, content: object, *, agent: Optional[str] = None, msg_type: str = "broadcast"
    ) -> int:
        """Send to all active connections, or to one agent's, and return to how many, once it is committed.

        Raises:
            WsManagerError: as for `send`.
        """
        result = await self._request(lambda ref: broadcast_frame(ref, agent, content, msg_type))
        return int(result.recipients or 0)

    async def _request(self, frame: Callable[[int], str]) -> Result:
        websocket = self._websocket
        if self._ended is not None:
            raise self._ended
        if websocket is None or websocket.closed:
            raise GatewayUnavailable("not connected to the gateway at the moment")
        self._last_ref += 1
        ref = self._last_ref
        answered = asyncio.get_running_loop().create_future()
        self._requests[ref] = answered
        try:
            with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                # The reader handles a lost connection, and says why it was lost.
                await websocket.send_str(frame(ref))
            result: Result = await answered
        finally:
            self._requests.pop(ref, None)
        if result.failure is not None:
            raise failed(result.failure)
        return result

    def _lose_requests(self, error: Optional[Exception] = None) -> None:
        for answered in self._requests.values():
            if not answered.done():
                answered.set_exception(error or GatewayUnavailable("the gateway was lost before it answered"))

    async def _run(self) -> None:
        try:
            while True:
                cause = await self._read()
                if self._leaving:
                    return
                self._lose_requests()
                self._websocket = await self._reconnect(cause)
        except Exception as error:
            self._lose_requests(error)
            # Whatever it is, whoever waits for a message must get it.
            self._ended = error
            self._arrived.set()

    async def _reconnect(self, cause: str) -> aiohttp.ClientWebSocketResponse:
        # Not at each greeting: a gateway that greets and closes would be called again at once, without end.
        if self._clock() - self._connected_at >= HEALTHY_SECONDS:
            self._attempt = 0
        while True:
            delay = min(LONGEST_DELAY, FIRST_DELAY * 2**self._attempt) * (0.5 + self._jitter() / 2)
            self._on_lost(cause, delay)
            await asyncio.sleep(delay)
            self._attempt = min(self._attempt + 1, 16)
            try:
                return await self._connect()
            except GatewayUnavailable as error:
                cause = error.message

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        assert self._http is not None
        url = self._url
        if not isinstance(url, str):
            url = await asyncio.get_running_loop().run_in_executor(None, url)
        address = self._address(url)
        token = await self._present_token(url)
        websocket = await dial(self._http, url, address, token=token, tls=self._tls, direct=self._direct)
        self._messages.clear()
        try:
            await self._greeted(websocket, url)
        except BaseException:
            await websocket.close()
            raise
        self._connected_at = self._clock()
        return websocket

    async def _present_token(self, url: str) -> Optional[str]:
        token = self._token
        if not isinstance(token, str):
            give = token or (
                lambda: own_token(None, self._agent, self._session.ws_id, url, scopes=_OWN_SCOPES)
            )
            token = await asyncio.get_running_loop().run_in_executor(None, give)
        if token is not None and not (token.isascii() and token.isprintable()):
            raise NotAuthorised("this is not a token: it has characters that no token has")
        return token

    async def _greeted(self, websocket: aiohttp.ClientWebSocketResponse, url: str) -> None:
        try:
            frame = await websocket.receive(timeout=HANDSHAKE_SECONDS)
        except asyncio.TimeoutError:
            raise GatewayUnavailable(f"{url} accepts sockets but does not greet them") from None
        if frame.type != aiohttp.WSMsgType.TEXT:
            raise GatewayUnavailable(f"{url} closed at the handshake: {describe(*_closed(frame))}")
        greeting = self._session.text(frame.data)
        if not isinstance(greeting, Connected):
            raise InvalidInput(f"{url} does not speak this protocol", remedy=CHECK_URL)
        self._on_connected(greeting)

    def _address(self, url: str) -> URL:
        try:
            address = URL(url)
        except ValueError:
            address = URL()
        if address.scheme not in ("http", "https", "ws", "wss") or not address.host:
            raise InvalidInput(
                f"not the address of a gateway: {url}", hint="for example http://127.0.0.1:8765"
            )
        if address.user is not None or address.query_string or address.fragment:
            # It would be dropped, and may be a secret, so the error does not quote it.
            raise InvalidInput(
                "the gateway's address is a base address: without a user, parameters or a fragment",
                remedy=PUT_TOKEN_IN_FILE,
            )
        query = {"agent": self._agent, "ack": "explicit"}
        if self._session.ws_id is not None:
            query["ws_id"] = self._session.ws_id
        if self._metadata is not None:
            query["metadata"] = self._metadata
        # The address of the sockets stands for its base.
        base = address.parent if address.name == "ws" else address
        return (base / "ws").with_query(query)

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
                self._messages.append(message)
                self._arrived.set()
            elif isinstance(message, Result):
                if message.ref in self._requests and not self._requests[message.ref].done():
                    self._requests[message.ref].set_result(message)
            elif isinstance(message, Failure):
                raise Conflict(f"the gateway reports: {message.message}")
            await self._write_answers()
        code, reason = _closed(frame)
        cause = describe(code, reason)
        if frame.type == aiohttp.WSMsgType.CLOSE:
            await self._answer_close(websocket, code)
        if code == CloseCode.BARRED:
            raise NotAuthorised(f"the gateway closed the connection: {cause}")
        if code == CloseCode.TOO_LARGE:
            raise InvalidInput(
                f"the gateway closed the connection: {cause}",
                hint="a frame of an agent has at most 64 KiB, unless its gateway takes more: send less at once",
            )
        if not should_reconnect(code):
            raise Conflict(f"the gateway closed the connection: {cause}")
        return cause

    async def _answer_close(self, websocket: aiohttp.ClientWebSocketResponse, code: int) -> None:
        """Answer the gateway's close frame as soon as the messages in work are acked: acks count until then."""
        with contextlib.suppress(asyncio.TimeoutError):
            while should_reconnect(code) and self._session.is_dealing:
                self._dealt.clear()
                await asyncio.wait_for(self._dealt.wait(), LAST_ACK_SECONDS)
        await websocket.close(code=CloseCode.DONE if code == CloseCode.NO_STATUS else code)

    async def _write_answers(self) -> None:
        websocket = self._websocket
        if websocket is None or websocket.closed:
            return
        answers = self._session.take_answers()
        try:
            while answers:
                # The reader handles a lost connection; what was not confirmed comes again.
                with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                    await websocket.send_str(answers.pop(0))
        finally:
            # Left over after a cancellation: they go out with the next.
            self._session.answers[:0] = answers


def _closed(frame: aiohttp.WSMessage) -> tuple[int, str]:
    """Return close code and reason of the frame that ended a socket."""
    if frame.type == aiohttp.WSMsgType.CLOSE:
        # 0: a close frame without a code.
        return frame.data or CloseCode.NO_STATUS, frame.extra or ""
    # Not `close_code`: aiohttp calls the end of a connection 1000 where no close frame has come.
    return CloseCode.LOST, ""
