"""What strangers try. Each attack is made against a running gateway, and returns how the gateway ended it."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple, Optional
from urllib.parse import urlencode, urlsplit

import aiohttp
import jwt

from tests.support import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    RawAgent,
    handshake,
    refusal,
    until,
    upgrade,
    within,
)
from tests.test_tokens import unsigned
from ws_manager.core.ledger import Ledger, ledger_over
from ws_manager.repository.sqlite.database import Database
from ws_manager.tokens import mint

ORIGIN = "https://app.example.com"
"""The only page elsewhere that the attacked gateway lets connect."""

BYSTANDER = "ws-bystander"
"""Another agent's connection. It is there, and has a message in flight that it has not confirmed."""

GOES_ON = 0
"""Not refused: it has no effect, and the socket stays."""

CONTINUATION = 0
RSV1 = 0x40


async def _no_time() -> None:
    """Let time pass by itself."""


@dataclass(frozen=True)
class Target:
    """A gateway to attack.

    Attributes:
        url: base address.
        key: that signs its tokens. A stranger does not have it; an agent who turns bad has a token.
        db: its ledger.
        foreign: the number of the bystander's message that is in flight.
        ws_id: the attacker's own connection, whose agent is `octavia`.
        pass_time: lets some seconds pass, where the gateway has a clock of the test's own.
        narrow: makes the gateway's buffer for a socket small, where it is in this process.
    """

    url: str
    key: bytes
    db: Database
    foreign: int
    ws_id: str = "ws-stranger"
    pass_time: Callable[[], Awaitable[None]] = _no_time
    narrow: Callable[[str], None] = lambda _: None

    @property
    def ledger(self) -> Ledger:
        return ledger_over(self.db)

    def bearer(self, agent: str = "octavia", **how: Any) -> tuple[str, str]:
        """Make the header that lets an agent in."""
        how.setdefault("scopes", ("connect", "send", "broadcast"))
        return "Authorization", f"Bearer {mint(self.key, agent, **how)}"

    async def asked(self, *headers: tuple[str, str], **query: str) -> int:
        """Try a handshake, and return its status."""
        return await refusal(self.url, self.query(**query), list(headers))

    def query(self, **query: str) -> str:
        return urlencode({"agent": "octavia", "ws_id": self.ws_id, **query})

    @contextlib.asynccontextmanager
    async def agent(self, ack: str = "explicit", receive_buffer: int = 0) -> Any:
        """Connect as an agent that was let in, and turns bad."""
        reader, writer, status = await handshake(
            self.url, self.query(ack=ack), [self.bearer()], receive_buffer=receive_buffer
        )
        assert status == 101
        raw = RawAgent(reader, writer)
        try:
            raw.greeting = await raw.json()
            yield raw
        finally:
            raw.drop()

    async def sent(self, *frames: tuple[int, bytes], last: bool = True) -> int:
        """Send frames, and return the code that the gateway closes with.

        Who still writes when the gateway hangs up may get a reset instead of the close frame; the ledger says
        then which it was.
        """
        async with self.agent() as agent:
            with contextlib.suppress(ConnectionError):
                for opcode, payload in frames:
                    await agent.send(opcode, payload, last=last)
            code = await agent.closed()
            return await self.code_in_the_ledger() if code == 1006 else code

    async def wrote(self, data: bytes) -> int:
        """Write bytes that are no whole frame, and return the code that the gateway closes with."""
        async with self.agent() as agent:
            agent._writer.write(data)
            return int(await agent.closed())

    async def code_in_the_ledger(self) -> int:
        """Wait until the ledger knows that the attacker's socket is gone, and return its close code."""

        def code() -> Optional[int]:
            connection = self.ledger.find(self.ws_id)
            return None if connection is None else connection.close_code

        await until(lambda: code() is not None)
        return code() or 0

    async def passing(self, work: Coroutine[Any, Any, int]) -> int:
        """Let time pass until something has ended."""
        task = asyncio.ensure_future(work)
        while not task.done():
            await self.pass_time()
            await asyncio.wait({task}, timeout=0.002)
        return await task


class Bystander:
    """An agent that does what agents do, and is not to notice anything."""

    def __init__(self, agent: RawAgent) -> None:
        self._agent = agent
        self._pongs = 0
        self._answered = asyncio.Event()
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while True:
            opcode, payload = await self._agent.frame()
            if opcode == PING:
                await self._agent.send(PONG, payload)
            elif opcode == PONG:
                self._answered.set()
            else:
                assert opcode == TEXT, (opcode, payload)
                self._frames.put_nowait(payload)

    async def frame(self) -> bytes:
        """Wait for the next text frame."""
        return await within(self._or_end(self._frames.get()))

    async def sign_of_life(self) -> None:
        """Have the gateway read something, and wait until it has."""
        self._answered.clear()
        await self._agent.send(PING, b"alive")
        await within(self._or_end(self._answered.wait()))

    async def _or_end(self, work):
        """Wait for something, or for the end of the socket, which is a failure."""
        task = asyncio.ensure_future(work)
        await asyncio.wait({task, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            self._task.result()
        return task.result()

    async def leave(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


async def goes_on(agent: RawAgent) -> int:
    """Assert that a socket is still attended to."""
    await agent.send(PING, b"still here?")
    while True:
        opcode, payload = await agent.frame()
        if (opcode, payload) == (PONG, b"still here?"):
            return GOES_ON
        if opcode == CLOSE:
            return int(struct.unpack("!H", payload[:2])[0])


# Before the upgrade


async def no_token(target: Target) -> int:
    return await target.asked()


async def expired_token(target: Target) -> int:
    return await target.asked(target.bearer(now=1_000_000))


async def wrong_audience(target: Target) -> int:
    claims = {"sub": "octavia", "aud": "another", "iat": 0, "exp": 10**10, "scope": "connect"}
    return await target.asked(
        ("Authorization", "Bearer " + jwt.encode(claims, target.key, algorithm="HS256"))
    )


async def no_algorithm(target: Target) -> int:
    return await target.asked(("Authorization", f"Bearer {unsigned(alg='none')}"))


async def another_key(target: Target) -> int:
    return await target.asked(("Authorization", f"Bearer {mint(b'x' * 32, 'octavia')}"))


async def another_agents_name(target: Target) -> int:
    return await target.asked(target.bearer("cipher"))


async def another_ws_id_than_the_tokens(target: Target) -> int:
    return await target.asked(target.bearer(ws_id="ws-another"))


async def another_agents_ws_id(target: Target) -> int:
    return await target.asked(target.bearer(), ws_id=BYSTANDER)


async def scope_too_small(target: Target) -> int:
    return await target.asked(target.bearer(scopes=("send", "broadcast", "send")))


async def foreign_origin(target: Target) -> int:
    return await target.asked(target.bearer(), ("Origin", "https://example.com"))


async def null_origin(target: Target) -> int:
    return await target.asked(target.bearer(), ("Origin", "null"))


async def origin_that_ends_like_ours(target: Target) -> int:
    return await target.asked(target.bearer(), ("Origin", "https://evil-app.example.com"))


async def foreign_host(target: Target) -> int:
    return await target.asked(target.bearer(), ("Host", "example.com"))


async def huge_head(target: Target) -> int:
    return await target.asked(target.bearer(), ("X-Padding", "x" * 20_000))


async def half_open_handshake(target: Target) -> int:
    address = urlsplit(target.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(f"GET /ws?{target.query()} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgr".encode())
    try:
        return await target.passing(_end_of(reader))
    finally:
        writer.close()


async def _end_of(reader: asyncio.StreamReader) -> int:
    with contextlib.suppress(ConnectionError):
        assert await within(reader.read()) == b""
    return 1006


# Frames


async def oversize_frame(target: Target) -> int:
    return await target.sent((TEXT, b"x" * (64 * 1024 + 1)))


async def far_oversize_frame(target: Target) -> int:
    return await target.sent((TEXT, b"x" * (1024 * 1024)))


async def two_gib_declared(target: Target) -> int:
    return await target.wrote(b"\x81\xff" + struct.pack("!Q", 2 << 30) + b"mask" + b"x" * 1000)


async def pings_too_fast(target: Target) -> int:
    return await target.sent(*[(PING, b"")] * 1000)


async def requests_too_fast(target: Target) -> int:
    return await target.sent(*[(TEXT, b'{"type":"send","ref":1,"to":"ws-nobody","content":1}')] * 1000)


async def not_utf_8(target: Target) -> int:
    return await target.sent((TEXT, b'{"type":"\xff\xfe"}'))


async def endless_fragments(target: Target) -> int:
    return await target.sent((TEXT, b"x" * 1000), *[(CONTINUATION, b"x" * 1000)] * 1000, last=False)


async def endless_empty_fragments(target: Target) -> int:
    async with target.agent() as agent:
        agent.pongs = False
        ended = asyncio.ensure_future(target.passing(agent.closed()))
        await agent.send(TEXT, last=False)
        with contextlib.suppress(ConnectionError):
            while not ended.done():
                await agent.send(CONTINUATION, last=False)
                # From Python 3.12 on nothing in that gives way while the system takes it all.
                await asyncio.sleep(0)
        code = await ended
        return await target.code_in_the_ledger() if code == 1006 else code


async def binary_frame(target: Target) -> int:
    return await target.sent((BINARY, b'{"type":"ack","seq":1}'))


async def unknown_type(target: Target) -> int:
    return await target.sent((TEXT, b'{"type":"shutdown"}'))


async def deep_json(target: Target) -> int:
    return await target.sent((TEXT, b"[" * 10_000 + b"]" * 10_000))


async def unknown_opcode(target: Target) -> int:
    return await target.sent((3, b"{}"))


async def fragmented_ping(target: Target) -> int:
    return await target.sent((PING, b""), last=False)


async def close_of_one_byte(target: Target) -> int:
    return await target.sent((CLOSE, b"\x03"))


async def compression(target: Target) -> int:
    """Offered, and used although it was not agreed to."""
    offer = ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
    reader, writer, head = await upgrade(target.url, target.query(), [target.bearer(), offer])
    agent = RawAgent(reader, writer)
    try:
        assert head.startswith("HTTP/1.1 101 ")
        assert "sec-websocket-extensions" not in head.lower()
        await agent.json()
        await agent.send(TEXT | RSV1, b"\xaaV*\xa9,HU\xb2RJL\xceV\xaa\x05\x00")
        return await agent.closed()
    finally:
        agent.drop()


async def slow_reader(target: Target) -> int:
    """The peer sees no close frame where nothing more can be written, so the ledger says which it was."""
    async with target.agent("pong", receive_buffer=4096) as agent:
        agent.stop_reading()
        target.narrow(target.ws_id)
        with target.db.transaction():
            for _ in range(10):
                target.ledger.send(target.ws_id, "x" * 200_000)
        return await target.passing(target.code_in_the_ledger())


# Receipts


async def ack_for_anothers_message(target: Target) -> int:
    async with target.agent() as agent:
        await agent.ack(target.foreign)
        return await goes_on(agent)


async def reject_of_anothers_message(target: Target) -> int:
    async with target.agent() as agent:
        await agent.say(type="reject", seq=target.foreign, reason="not mine")
        assert await agent.error() == "conflict"
        return await goes_on(agent)


async def reject_for_a_reason_that_is_no_text(target: Target) -> int:
    """JSON can name half of a surrogate pair; UTF-8, and with it the ledger, cannot hold it."""
    async with target.agent() as agent:
        seq = await _message(target, agent)
        await agent.send(TEXT, b'{"type":"reject","seq":%d,"reason":"\\ud800"}' % seq)
        query = "SELECT reject_reason FROM messages WHERE id = ?"
        await until(lambda: target.db.value(query, (seq,)) is not None)
        return await goes_on(agent)


async def request_with_a_ref_that_is_no_text(target: Target) -> int:
    async with target.agent() as agent:
        for rest in (b'"to":"ws-nobody","content":1', b'"to":"ws-nobody"'):
            await agent.send(TEXT, b'{"type":"send","ref":"\\ud800",' + rest + b"}")
            assert (await agent.json())["ref"] == "\ud800"
        return await goes_on(agent)


async def ack_beyond_what_was_written(target: Target) -> int:
    """It confirms what was written, and nothing that comes after it."""
    async with target.agent() as agent:
        before = await _message(target, agent)
        await agent.ack(2**63 - 1)
        await until(lambda: _delivered(target, before))
        await agent.ack(2**63 - 1)
        # It was read before there was anything more to confirm.
        await goes_on(agent)
        after = await _message(target, agent)
        ended = await goes_on(agent)
        await agent.say_goodbye()
        # What a socket has to tell is written in order, and that it is gone comes last.
        await target.code_in_the_ledger()
    assert not _delivered(target, after)
    return ended


async def _message(target: Target, agent: RawAgent) -> int:
    """Send the attacker a message, and wait until it is there."""
    message = target.ledger.send(target.ws_id, "for the stranger")
    assert message is not None
    assert message.db_id is not None
    while (await agent.message())["seq"] != message.db_id:
        pass
    return message.db_id


def _delivered(target: Target, seq: int) -> bool:
    return bool(target.db.value("SELECT delivered FROM messages WHERE id = ?", (seq,)))


async def pong_that_nobody_asked_for(target: Target) -> int:
    async with target.agent("pong") as agent:
        await agent.send(PONG, b"%d" % target.foreign)
        return await goes_on(agent)


class Attack(NamedTuple):
    """An attack.

    Attributes:
        make: makes it, and returns how it ended.
        ends: with which HTTP status below 1000, close code from there on, or `GOES_ON`.
        slow: it ends by a timeout.
    """

    make: Callable[[Target], Coroutine[Any, Any, int]]
    ends: int
    slow: bool = False

    def __str__(self) -> str:
        return self.make.__name__


ATTACKS = [
    Attack(no_token, 401),
    Attack(expired_token, 401),
    Attack(wrong_audience, 401),
    Attack(no_algorithm, 401),
    Attack(another_key, 401),
    Attack(another_agents_name, 403),
    Attack(another_ws_id_than_the_tokens, 403),
    Attack(another_agents_ws_id, 409),
    Attack(scope_too_small, 403),
    Attack(foreign_origin, 403),
    Attack(null_origin, 403),
    Attack(origin_that_ends_like_ours, 403),
    Attack(foreign_host, 403),
    Attack(huge_head, 400),
    Attack(half_open_handshake, 1006, slow=True),
    Attack(oversize_frame, 1009),
    Attack(far_oversize_frame, 1009),
    Attack(two_gib_declared, 1009),
    Attack(pings_too_fast, 4029),
    Attack(requests_too_fast, 4029),
    Attack(not_utf_8, 1007),
    Attack(endless_fragments, 1009),
    Attack(endless_empty_fragments, 1009),
    Attack(binary_frame, 4000),
    Attack(unknown_type, 4000),
    Attack(deep_json, 4000),
    Attack(unknown_opcode, 1002),
    Attack(fragmented_ping, 1002),
    Attack(close_of_one_byte, 1002),
    Attack(compression, 1002),
    Attack(slow_reader, 4008, slow=True),
    Attack(ack_for_anothers_message, GOES_ON),
    Attack(reject_of_anothers_message, GOES_ON),
    Attack(ack_beyond_what_was_written, GOES_ON),
    Attack(reject_for_a_reason_that_is_no_text, GOES_ON),
    Attack(request_with_a_ref_that_is_no_text, GOES_ON),
    Attack(pong_that_nobody_asked_for, GOES_ON),
]
"""Every refusal, and every receipt that confirms nothing of another's."""

if tuple(map(int, aiohttp.__version__.split(".")[:3])) < (3, 14, 3):
    # One of the holes (CVE-2026-54274) for which such an aiohttp is served on loopback only: it collects the frame.
    ATTACKS = [attack for attack in ATTACKS if attack.make is not two_gib_declared]
