"""The handshake with a gateway, directly or through a proxy, and the errors when it fails."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from typing import Any, Optional, TypeVar

import aiohttp
from yarl import URL

from ws_manager.client.refusals import Refused, refused, untrusted
from ws_manager.errors import InvalidInput
from ws_manager.models import MessageWorker
from ws_manager.protocol.close_codes import CloseCode
from ws_manager.proxies import proxy_for, unreachable
from ws_manager.remedies import PUT_TOKEN_IN_FILE

HANDSHAKE_SECONDS = 10.0
_MAX_FRAME = 4 * 1024 * 1024
Outcome = TypeVar("Outcome")


def socket_address(
    url: str,
    agent: str,
    ws_id: Optional[str],
    metadata: Optional[str],
    worker: Optional[MessageWorker] = None,
) -> URL:
    """Return the address of a gateway's socket for an agent.

    Args:
        url: the gateway's base address, or that of its sockets.
        agent: the logical name.
        ws_id: the connection; None for a new one.
        metadata: a JSON object; None to leave it out.
        worker: this process, if its attempts at messages are counted in the ledger.

    Raises:
        InvalidInput: the address cannot be used.
    """
    try:
        address = URL(url)
    except ValueError:
        address = URL()
    if address.scheme not in ("http", "https", "ws", "wss") or not address.host:
        raise InvalidInput(f"not the address of a gateway: {url}", hint="for example http://127.0.0.1:8765")
    if address.user is not None or address.query_string or address.fragment:
        # It would be dropped, and may be a secret, so the error does not quote it.
        raise InvalidInput(
            "the gateway's address is a base address: without a user, parameters or a fragment",
            remedy=PUT_TOKEN_IN_FILE,
        )
    query = {"agent": agent, "ack": "explicit"}
    if ws_id is not None:
        query["ws_id"] = ws_id
    if metadata is not None:
        query["metadata"] = metadata
    if worker is not None:
        query.update(max_attempts=str(worker.max_attempts), worker=worker.name)
    # The address of the sockets stands for its base.
    base = address.parent if address.name == "ws" else address
    return (base / "ws").with_query(query)


def close_of(frame: aiohttp.WSMessage) -> tuple[int, str]:
    """Return close code and reason of the frame that ended a socket."""
    if frame.type == aiohttp.WSMsgType.CLOSE:
        # 0: a close frame without a code.
        return frame.data or CloseCode.NO_STATUS, frame.extra or ""
    # Not `close_code`: aiohttp calls the end of a connection 1000 where no close frame has come.
    return CloseCode.LOST, ""


async def dial(
    http: aiohttp.ClientSession,
    url: str,
    address: URL,
    *,
    token: Optional[str],
    tls: Optional[ssl.SSLContext],
    direct: bool,
) -> aiohttp.ClientWebSocketResponse:
    """Connect a socket.

    Args:
        http: a session with the middleware `read_refusals`.
        url: the gateway's base address, for messages.
        address: of its sockets.
        token: the token to connect with, if any.
        tls: what checks the gateway's certificate; the system's certificates if None.
        direct: never use a proxy.

    Raises:
        GatewayUnavailable: nothing answers, or something that is not a gateway.
        NotAuthorised, Conflict, InvalidInput: the gateway refuses it; or the proxy is of another kind.
    """
    proxy = None if direct else proxy_for(str(address))
    try:
        return await in_time(
            http.ws_connect(
                address,
                # RFC 6750 section 2.1. Not in the address: addresses end up in logs.
                headers={} if token is None else {"Authorization": f"Bearer {token}"},
                ssl=True if tls is None else tls,
                max_msg_size=_MAX_FRAME,
                # Acks still count between the gateway's close frame and ours: the caller answers it.
                autoclose=False,
                timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                proxy=proxy,
            ),
            HANDSHAKE_SECONDS,
        )
    except Refused as answer:
        raise refused(answer, url) from None
    except aiohttp.InvalidURL:
        # The proxy's address: the gateway's was checked before. It may hold a password.
        raise InvalidInput(
            "the proxy's address cannot be used", hint="check HTTPS_PROXY and HTTP_PROXY"
        ) from None
    except aiohttp.ClientConnectorCertificateError as error:
        raise untrusted(error, url) from None
    except aiohttp.ClientResponseError as error:
        # The proxy's answer to CONNECT, or an answer that opens no socket. Its text is not quoted: it may hold
        # addresses.
        raise unreachable(f"it answered {error.status}", url, proxy) from None
    except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
        raise unreachable(error if str(error) else "no answer in time", url, proxy) from None


async def in_time(work: Coroutine[Any, Any, Outcome], seconds: float) -> Outcome:
    """Wait for `work`, and return its result.

    Unlike `wait_for` before Python 3.12, this never loses a cancellation that comes with the result.

    Raises:
        asyncio.TimeoutError: it took too long, and is cancelled.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise asyncio.TimeoutError
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
