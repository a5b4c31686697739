"""Agents for tests: a plain RFC 6455 client of exact frames, and a gateway in the test's own event loop."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Optional, Protocol, TypeVar, Union
from urllib.parse import urlencode, urlsplit

from ws_manager import ConnectionPool, add_connection, get_db, open_ledger
from ws_manager.core.delivery import Delivery
from ws_manager.core.ledger import Ledger
from ws_manager.gateway.http.stripe import StripeOptions
from ws_manager.gateway.limits import Limits
from ws_manager.gateway.options import GatewayOptions
from ws_manager.gateway.own_quotas import OwnQuotas
from ws_manager.gateway.server import GatewayServer
from ws_manager.models import Connection
from ws_manager.protocol.close_codes import CloseCode
from ws_manager.repository.engines import engine_of
from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.sqlite.locks import Lock, gateway_lock, living_lock
from ws_manager.repository.sqlite.store import SqliteStore
from ws_manager.settings import Location, located
from ws_manager.strict_json import Json

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
LIMIT = 20.0
"""Seconds: a test that waits for so long has failed."""

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result], seconds: float = 3 * LIMIT) -> Result:
    """Run a test's coroutine, bounded."""

    async def bounded() -> Result:
        return await asyncio.wait_for(work, seconds)

    return asyncio.run(bounded())


async def within(work: Awaitable[Result]) -> Result:
    """Wait for an event, bounded."""
    return await asyncio.wait_for(work, LIMIT)


def open_db(database: Path, **options: bool) -> Database:
    """What `get_db` returns, with what only tests use of it."""
    db = get_db(database, **options)
    assert isinstance(db, Database)
    return db


def open_sql(database: Location) -> Any:
    """Open a ledger, to be used as `Sql` or with the documented functions."""
    if isinstance(located(database), Path):
        return open_db(Path(str(database)))
    return PostgresLedger(engine_of(database).open_to_write(database))


class Sql(Protocol):
    """SQL in the words that both engines know, with `?` for values: for what only tests do."""

    def rows(self, sql: str, parameters: Sequence[object] = ...) -> list[tuple[Any, ...]]: ...
    def row(self, sql: str, parameters: Sequence[object] = ...) -> Optional[tuple[Any, ...]]: ...
    def value(self, sql: str, parameters: Sequence[object] = ...) -> Any: ...
    def execute(self, sql: str, parameters: Sequence[object] = ..., /) -> Any: ...
    def transaction(self) -> contextlib.AbstractContextManager[None]: ...
    def close(self) -> None: ...


class PostgresLedger(Ledger):
    """A ledger in PostgreSQL that takes SQL too, as a connection of `get_db` does."""

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return list(self.execute(sql, parameters).fetchall())

    def row(self, sql: str, parameters: Sequence[object] = ()) -> Optional[tuple[Any, ...]]:
        """Return the first row of a query, or None."""
        found: Optional[tuple[Any, ...]] = self.execute(sql, parameters).fetchone()
        return found

    def value(self, sql: str, parameters: Sequence[object] = ()) -> Any:
        """Return the first column of the first row, or None."""
        row = self.row(sql, parameters)
        return row[0] if row else None

    def execute(self, sql: str, parameters: Sequence[object] = (), /) -> Any:
        """Run a statement. `BEGIN IMMEDIATE` keeps every other writer out, as it does on SQLite."""
        session = self._store.db.session  # type: ignore[attr-defined]
        if sql == "BEGIN IMMEDIATE":
            tables = session.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'ws_manager'"
            ).fetchall()
            sql = f"BEGIN; LOCK TABLE {', '.join(row[0] for row in tables)} IN EXCLUSIVE MODE"
        return session.execute(sql.replace("?", "%s"), tuple(parameters) or None)

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """Write everything inside, or nothing."""
        return self._store.atomic()


def number_on(db: Sql, last: int) -> None:
    """Let the next message have the number after this one."""
    if isinstance(db, Database):
        with db.transaction():
            db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'messages'", (last,))
    else:
        db.execute("SELECT setval('messages_id_seq', ?)", (last,))


def db_of(over: Union[Ledger, Delivery]) -> Database:
    """The SQLite connection of a ledger, for what only tests do with it."""
    store = over._store
    assert isinstance(store, SqliteStore)
    return store.db


def sql_of(over: Union[Ledger, Delivery]) -> Sql:
    """The session of a ledger with its database, whichever engine keeps it."""
    return db_of(over) if isinstance(over._store, SqliteStore) else PostgresLedger(over._store)


def ledger_of(delivery: Delivery) -> Ledger:
    """The ledger that a delivery works on."""
    return Ledger(delivery._store)


@contextlib.contextmanager
def held(lock: Lock) -> Iterator[Lock]:
    """Hold a lock that nobody else holds until the block ends."""
    assert lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


@contextlib.contextmanager
def running(database: Path, gateway_id: str) -> Iterator[None]:
    """Hold what a gateway with this id holds while it runs."""
    with held(gateway_lock(database)), held(living_lock(database, gateway_id)):
        yield


def open_socket(
    ledger: Ledger, agent: str, ws_id: str, metadata: Optional[Json] = None, *, gateway: Optional[str] = "g"
) -> Connection:
    """Register a connection as a gateway does it for a socket; as a command does it where `gateway` is None."""
    if gateway is None:
        return ledger.connect(agent, ws_id, metadata)
    return ledger.delivery.open_socket(agent, ws_id, metadata, gateway).connection


class Refused(Exception):
    """The gateway answered the handshake with an HTTP status."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


class Closed(Exception):
    """The gateway closed the socket; 1006 where there was no close frame."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class RawAgent:
    """A client that sends and reads exactly what it is told to. It answers a Ping only where `pongs` is set."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pongs: bool = True
    ) -> None:
        self.pongs = pongs
        self.greeting: dict[str, Any] = {}
        self.pings: list[bytes] = []
        self._reader = reader
        self._writer = writer
        # Before Python 3.11 only one may wait for a writer that is full.
        self._draining = asyncio.Lock()

    async def send(self, opcode: int, payload: bytes = b"", *, last: bool = True) -> None:
        """Send one masked frame; not the last one of its message where `last` is False."""
        length = len(payload)
        size = (
            bytes([0x80 | length])
            if length < 126
            else b"\xfe" + struct.pack("!H", length)
            if length < 65536
            else b"\xff" + struct.pack("!Q", length)
        )
        mask = os.urandom(4)
        key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
        body = (int.from_bytes(payload, "big") ^ key).to_bytes(length, "big")
        if self._writer.is_closing():
            # To write would be a RuntimeError on uvloop, and nothing on asyncio's own loop.
            raise ConnectionResetError("the connection has ended")
        self._writer.write(bytes([(0x80 if last else 0) | opcode]) + size + mask + body)
        await self.drain()

    async def drain(self) -> None:
        """Wait until there is room for more to send."""
        async with self._draining:
            await within(self._writer.drain())

    async def say(self, **frame: object) -> None:
        """Send a JSON text frame."""
        await self.send(TEXT, json.dumps(frame).encode())

    async def ack(self, seq: int) -> None:
        """Send an explicit ack."""
        await self.say(type="ack", seq=seq)

    async def frame(self) -> tuple[int, bytes]:
        """Read one frame as it is.

        Raises:
            Closed: 1006, the connection has ended.
        """
        try:
            first, second = await within(self._reader.readexactly(2))
            length = second & 127
            if length == 126:
                (length,) = struct.unpack("!H", await within(self._reader.readexactly(2)))
            elif length == 127:
                (length,) = struct.unpack("!Q", await within(self._reader.readexactly(8)))
            return first & 15, await within(self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Closed(1006) from None

    async def json(self) -> dict[str, Any]:
        """Read the next text frame; Pings before it are answered, if this agent does that.

        Raises:
            Closed: the gateway closed instead.
        """
        while True:
            opcode, payload = await self.frame()
            if opcode == TEXT:
                frame: dict[str, Any] = json.loads(payload)
                return frame
            if opcode == PING:
                self.pings.append(payload)
                if self.pongs:
                    await self.send(PONG, payload)
            elif opcode == CLOSE:
                with contextlib.suppress(ConnectionError):
                    await self.send(CLOSE, payload[:2])
                code = struct.unpack("!H", payload[:2])[0] if payload else 1005
                raise Closed(code, payload[2:].decode())

    async def message(self) -> dict[str, Any]:
        """Read the next message."""
        frame = await self.json()
        assert frame["type"] == "message", frame
        return frame

    async def messages(self, count: int) -> list[int]:
        """Read so many messages and return their numbers."""
        return [(await self.message())["seq"] for _ in range(count)]

    async def error(self) -> str:
        """Read an error frame and return its code."""
        frame = await self.json()
        assert frame["type"] == "error", frame
        code: str = frame["error"]["code"]
        return code

    async def ping(self) -> bytes:
        """Read the next Ping, which must come before anything else, and do not answer it."""
        opcode, payload = await self.frame()
        assert opcode == PING, (opcode, payload)
        return payload

    async def closed(self) -> int:
        """Answer Pings until the gateway closes, and return the code."""
        try:
            while True:
                await self.json()
        except Closed as closed:
            return closed.code

    async def say_goodbye(self, code: Optional[int] = 1000) -> None:
        """Close, and wait for the gateway's own close frame."""
        await self.send(CLOSE, b"" if code is None else struct.pack("!H", code))
        await self.closed()
        self.drop()

    def stop_reading(self) -> None:
        """Leave what arrives in the kernel."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def drop(self) -> None:
        """End the TCP connection without a close frame."""
        self._writer.close()

    def reset(self) -> None:
        """End the TCP connection with a RST."""
        connection = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


async def handshake(
    url: str, query: str, headers: Optional[list[tuple[str, str]]] = None, *, receive_buffer: int = 0
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, int]:
    """Send an upgrade request and read the answer's status."""
    reader, writer, head = await upgrade(url, query, headers, receive_buffer=receive_buffer)
    return reader, writer, int(head.split(" ", 2)[1])


async def connect(
    url: str, query: dict[str, str], *, pongs: bool = True, receive_buffer: int = 0
) -> RawAgent:
    """Open a socket, whose greeting is not read yet.

    Raises:
        Refused: the gateway does not let it in.
    """
    reader, writer, status = await handshake(url, urlencode(query), receive_buffer=receive_buffer)
    if status != 101:
        body = (await within(reader.read(1000))).decode()
        writer.close()
        raise Refused(status, body)
    return RawAgent(reader, writer, pongs)


async def upgrade(
    url: str, query: str, headers: Optional[list[tuple[str, str]]] = None, *, receive_buffer: int = 0
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
    """Send an upgrade request and read the answer's head."""
    address = urlsplit(url)
    host, port = address.hostname or "", address.port or 0
    connection = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    connection.setblocking(False)
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        await within(asyncio.get_running_loop().sock_connect(connection, (host, port)))
    except BaseException:
        connection.close()
        raise
    reader, writer = await asyncio.open_connection(sock=connection)
    sent = [("Host", address.netloc)] if headers is None or "Host" not in dict(headers) else []
    lines = [
        f"GET /ws?{query} HTTP/1.1",
        *(f"{name}: {value}" for name, value in [*sent, *(headers or [])]),
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        "Sec-WebSocket-Version: 13",
    ]
    try:
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        return reader, writer, (await within(reader.readuntil(b"\r\n\r\n"))).decode()
    except BaseException:
        writer.close()
        raise


async def refusal(url: str, query: str, headers: Optional[list[tuple[str, str]]] = None) -> int:
    """The HTTP status that a handshake is answered with."""
    _, writer, status = await handshake(url, query, headers)
    writer.close()
    await writer.wait_closed()
    return status


class RunningGateway:
    """A gateway in this event loop, over a ledger that the test uses too."""

    def __init__(self, server: GatewayServer, database: Location) -> None:
        self.server = server
        self.url = server.url
        self.ledger = open_ledger(database)
        self.db = sql_of(self.ledger)
        self.pool = ConnectionPool(self.ledger)
        self._agents: list[RawAgent] = []

    @property
    def quotas(self) -> OwnQuotas:
        """What the gateway counts."""
        quotas = self.server._quotas
        assert isinstance(quotas, OwnQuotas)
        return quotas

    async def agent(
        self,
        agent: str = "octavia",
        ws_id: Optional[str] = "ws-001",
        *,
        pongs: bool = True,
        receive_buffer: int = 0,
        **query: str,
    ) -> RawAgent:
        """Connect an agent, and read its greeting.

        Raises:
            Refused: the gateway does not let it in.
        """
        names = {"agent": agent, **({"ws_id": ws_id} if ws_id else {}), **query}
        raw = await connect(self.url, names, pongs=pongs, receive_buffer=receive_buffer)
        self._agents.append(raw)
        raw.greeting = await raw.json()
        return raw

    def send(self, content: object = None, ws_id: str = "ws-001") -> int:
        """Commit a message, and return its number."""
        message = self.ledger.send(ws_id, content)
        assert message is not None
        assert message.db_id is not None
        return message.db_id

    def send_many(self, count: int, ws_id: str = "ws-001", content: object = None) -> list[int]:
        """Commit so many messages in one transaction."""
        bulk = self.ledger.batch
        bulk.send([bulk.message(content, "data", ws_id)] * count)
        newest = "SELECT id FROM messages WHERE recipient_id = ? ORDER BY id DESC LIMIT ?"
        return [row[0] for row in self.db.rows(newest, (ws_id, count))][::-1]

    def offline(self, agent: str = "octavia", ws_id: str = "ws-001") -> None:
        """Register a connection that has no socket yet."""
        add_connection(self.pool, ws_id, agent)

    def connection(self, ws_id: str = "ws-001") -> Connection:
        """The connection, as the ledger has it now."""
        found = self.ledger.find(ws_id)
        assert found is not None
        return found

    def delivered(self) -> list[int]:
        """The numbers of what is confirmed."""
        return [row[0] for row in self.db.rows("SELECT id FROM messages WHERE delivered = 1 ORDER BY id")]

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until something is true in the ledger: looked at whenever somebody has committed."""
        await until(condition)

    async def confirmed(self, *seqs: int) -> None:
        """Wait until messages are marked as delivered."""
        await until(lambda: set(seqs) <= set(self.delivered()))

    async def socket_ended(self, ws_id: str = "ws-001") -> Connection:
        """Wait until the ledger knows that the connection's socket is gone, and return the connection."""
        await until(lambda: self.connection(ws_id).close_code is not None)
        return self.connection(ws_id)

    def close(self) -> None:
        """Let go of everything that the test held."""
        for agent in self._agents:
            agent.drop()
        self.ledger.close()


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something is true, bounded."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def gateway(
    database: Location,
    *,
    now: Callable[[], float] = time.monotonic,
    heartbeat_timeout: float = 30.0,
    close_seconds: float = 0.2,
    drain_seconds: float = 0.0,
    stop_code: CloseCode = CloseCode.GOING_AWAY,
    limits: Optional[Limits] = None,
    log_interval: float = 60.0,
    log_keep: float = 86400.0,
    keep: Optional[float] = None,
    host: str = "127.0.0.1",
    more_hosts: tuple[str, ...] = (),
    port: int = 0,
    key: Optional[bytes] = None,
    public_hosts: tuple[str, ...] = (),
    origins: tuple[str, ...] = (),
    proxies: tuple[str, ...] = (),
    tls: Optional[ssl.SSLContext] = None,
    stripe: Optional[StripeOptions] = None,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[RunningGateway]:
    """Run a gateway until the block ends; with a `key` it asks for tokens."""
    server = GatewayServer(
        GatewayOptions(
            located(database),
            (host, *more_hosts),
            port,
            heartbeat_timeout=heartbeat_timeout,
            drain_seconds=drain_seconds,
            limits=replace(limits or Limits(), close_seconds=close_seconds),
            log_interval=log_interval,
            log_keep=log_keep,
            keep=keep,
            key=key,
            public_hosts=public_hosts,
            origins=origins,
            proxies=proxies,
            tls=tls,
            stripe=stripe,
        ),
        now,
        clock,
    )
    stop: asyncio.Future[CloseCode] = asyncio.get_running_loop().create_future()
    ready = asyncio.Event()
    task = asyncio.create_task(server.run(stop, lambda url: ready.set()))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=LIMIT)
    waiting.cancel()
    if not ready.is_set():
        stop.set_result(stop_code)
        await task
    running = RunningGateway(server, database)
    try:
        yield running
    finally:
        stop.set_result(stop_code)
        try:
            await within(asyncio.shield(task))
        finally:
            running.close()
            # Transports close in the loop's next turns.
            for _ in range(3):
                await asyncio.sleep(0)


class Clock:
    """A monotonic clock that moves only with `forward`."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds


@contextlib.contextmanager
def gateway_in_a_thread(database: Location, key: Optional[bytes] = None) -> Iterator[str]:
    """Run a gateway in an event loop of its own, and give its address; with a key it asks for tokens."""
    started: list[str] = []
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop: asyncio.Future[None] = loop.create_future()

    async def serve() -> None:
        async with gateway(database, key=key) as running:
            started.append(running.url)
            ready.set()
            await stop

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(30)
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set_result, None)
        thread.join()
        loop.close()
