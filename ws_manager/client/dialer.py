"""The attempts to connect one agent to its gateway: the first, and those after a connection was lost."""

from __future__ import annotations

import asyncio
import ssl
from typing import Callable, Optional, Union

import aiohttp

from ws_manager.client.credentials import own_token
from ws_manager.client.dialing import HANDSHAKE_SECONDS, close_of, dial, socket_address
from ws_manager.errors import GatewayUnavailable, InvalidInput, LedgerBusy, NotAuthorised
from ws_manager.models import MessageWorker
from ws_manager.protocol.agent_session import AgentSession
from ws_manager.protocol.close_codes import describe
from ws_manager.protocol.frames import Connected
from ws_manager.remedies import CHECK_URL
from ws_manager.strict_json import Json

FIRST_DELAY, LONGEST_DELAY = 0.25, 15.0
"""Seconds between attempts: doubled each time, up to the longest."""

HEALTHY_SECONDS = 60.0
"""After a connection of this many seconds, the delays between attempts start over."""

# What passes by itself. The address, and a token, may come from a ledger that is busy for a moment.
_PASSING = (GatewayUnavailable, LedgerBusy)

# For each method of `AgentClient`.
_OWN_SCOPES = ("connect", "send", "broadcast")


class Dialer:
    """Connects one agent. The arguments that are not here are those of `AgentClient`.

    Args:
        session: reads the greetings.
        tls: the certificates to check an `https` gateway's with; None for the system's.
        worker: this process, if its attempts at messages are counted in the ledger.
        patient: try the first connection until the gateway is there, instead of once.
    """

    def __init__(
        self,
        session: AgentSession,
        agent: str,
        url: Union[str, Callable[[], str]],
        token: Union[str, Callable[[], Optional[str]], None],
        tls: Optional[ssl.SSLContext],
        *,
        metadata: Optional[Json],
        worker: Optional[MessageWorker],
        direct: bool,
        patient: bool,
        on_connected: Callable[[Connected], None],
        on_lost: Callable[[str, float], None],
        jitter: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._session = session
        self._agent = agent
        self._url = url
        self._token = token
        self._tls = tls
        self._metadata = metadata
        self._worker = worker
        self._direct = direct
        self._patient = patient
        self._on_connected = on_connected
        self._on_lost = on_lost
        self._jitter = jitter
        self._clock = clock
        self._http: Optional[aiohttp.ClientSession] = None
        self._attempt = 0
        self._connected_at = 0.0

    async def first(self, http: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
        """Return the first socket, once it is greeted. Errors are those of `AgentClient.__aenter__`.

        Args:
            http: makes this and all later sockets.
        """
        self._http = http
        try:
            return await self._connect()
        except _PASSING as error:
            if not self._patient:
                raise
            return await self.again(error.message)

    async def again(self, cause: str) -> aiohttp.ClientWebSocketResponse:
        """Return the next socket, once it is greeted, after as many attempts as it takes.

        Args:
            cause: why the last socket is lost, in words.

        Raises:
            WsManagerError: the agent must not come back.
        """
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
            except _PASSING as error:
                cause = error.message

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        assert self._http is not None
        url = self._url
        if not isinstance(url, str):
            url = await asyncio.get_running_loop().run_in_executor(None, url)
        address = socket_address(url, self._agent, self._session.ws_id, self._metadata, self._worker)
        token = await self._present_token(url)
        websocket = await dial(self._http, url, address, token=token, tls=self._tls, direct=self._direct)
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
            ws_id = self._session.ws_id
            give = token or (lambda: own_token(None, self._agent, ws_id, url, scopes=_OWN_SCOPES))
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
            raise GatewayUnavailable(f"{url} closed at the handshake: {describe(*close_of(frame))}")
        greeting = self._session.text(frame.data)
        if not isinstance(greeting, Connected):
            raise InvalidInput(f"{url} does not speak this protocol", remedy=CHECK_URL)
        self._on_connected(greeting)
