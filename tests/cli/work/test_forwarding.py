"""Messages that a real gateway delivers, posted to servers that answer in every way."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable
from email.utils import formatdate
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from tests.support import RunningGateway, gateway, within
from ws_manager.cli.work import forwarding
from ws_manager.cli.work.forwarding import Forwarder, read_secrets
from ws_manager.cli.work.job import CONTENT, ENVELOPE, RAW
from ws_manager.client import worker
from ws_manager.client.agent import AgentClient
from ws_manager.errors import Conflict, InvalidInput

OLD, NEW = "whsec_" + base64.b64encode(b"o" * 32).decode(), base64.b64encode(b"n" * 32).decode().rstrip("=")
NOWHERE = "http://127.0.0.1:1/"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a backoff here."""
    monkeypatch.setattr(worker, "FIRST_PAUSE", 0.001)


class Receiver:
    """A server that keeps what it gets, and answers with what a test wants: the last answer again and again."""

    def __init__(self, *answers: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self.answers = list(answers)
        self.bodies: list[bytes] = []
        self.headers: list[Any] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.read())
        self.headers.append(request.headers)
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        return await answer(request)


def status(
    code: int, text: str = "", **headers: str
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, text=text, headers=headers)

    return answer


async def hangs(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(3600)
    raise AssertionError


async def closes_in_the_body(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Length": "1000"})
    await answer.prepare(request)
    await answer.write(b"half of it")
    assert request.transport is not None
    request.transport.close()
    return answer


async def closes_at_once(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


@contextlib.asynccontextmanager
async def receiving(
    *answers: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[Receiver]:
    receiver = Receiver(*answers)
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()


async def forwarded(
    running: RunningGateway,
    url: str,
    *,
    form: str = CONTENT,
    secrets: Optional[Path] = None,
    headers: Optional[Path] = None,
    most: int = 2,
) -> list[Conflict]:
    """Forward what is pending until nothing is, or the address is gone; return the error then."""
    gone: list[Conflict] = []

    def stop(error: Conflict) -> None:
        gone.append(error)
        working.cancel()

    async with (
        Forwarder(url, form, secrets, headers, stop) as forwarder,
        AgentClient("octavia", url=running.url, ws_id="ws-001", max_attempts=most, stay=True) as client,
    ):
        client.on()(forwarder)
        working = asyncio.ensure_future(client.run(until_empty=True, grace=1.0))
        with contextlib.suppress(asyncio.CancelledError):
            await within(working)
    return gone


def waiting(running: RunningGateway, *contents: object) -> list[str]:
    """Commit messages for an agent that is away, and return their ids."""
    running.offline()
    return [running.ledger.send("ws-001", content).msg_id for content in contents]


def reasons(running: RunningGateway) -> list[Optional[str]]:
    return [row[0] for row in running.db.rows("SELECT reject_reason FROM messages ORDER BY id")]


def failures(running: RunningGateway) -> list[str]:
    return [
        str(row[0]) for row in running.db.rows("SELECT detail FROM events WHERE kind = 'failed' ORDER BY id")
    ]


class TestAnswers:
    @pytest.mark.parametrize("code", [200, 202, 204, 299])
    async def test_2xx_confirms(self, database: Path, code: int) -> None:
        async with gateway(database) as running, receiving(status(code)) as receiver:
            waiting(running, {"n": 1}, "two")
            await forwarded(running, receiver.url)
            assert receiver.bodies == [b'{"n":1}', b'"two"']
            assert len(running.delivered()) == 2

    async def test_500_is_tried_again_under_the_same_id(self, database: Path) -> None:
        async with gateway(database) as running, receiving(status(500, "why"), status(200)) as receiver:
            (msg_id,) = waiting(running, 1)
            await forwarded(running, receiver.url)
            assert [headers["webhook-id"] for headers in receiver.headers] == [msg_id, msg_id]
            assert failures(running) == ["attempt 1 of 2: HTTP 500: why"]
            assert len(running.delivered()) == 1

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (status(500), "HTTP 500"),
            (
                status(400, "no such\x1b[31m thing" + "x" * 2000),
                "HTTP 400: no such\x1b[31m thing" + "x" * 982,
            ),
            (status(302, Location="/elsewhere"), "HTTP 302: redirects are not followed"),
            (closes_in_the_body, "no answer: ClientPayloadError"),
            (closes_at_once, "no answer: ServerDisconnectedError"),
        ],
        ids=["500", "400", "302", "closes in the body", "closes at once"],
    )
    async def test_failure_is_told_and_sets_aside_after_the_last_attempt(
        self, database: Path, answer: Callable[[web.Request], Awaitable[web.StreamResponse]], reason: str
    ) -> None:
        async with gateway(database) as running, receiving(answer) as receiver:
            waiting(running, 1)
            await forwarded(running, receiver.url)
            assert reasons(running) == [f"attempt 2 of 2 failed: {reason}"]
            assert len(receiver.bodies) == 2

    async def test_server_that_hangs_is_a_failure(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(forwarding, "TIMEOUT_SECONDS", 0.2)
        async with gateway(database) as running, receiving(hangs) as receiver:
            waiting(running, 1)
            await forwarded(running, receiver.url)
            assert reasons(running) == ["attempt 2 of 2 failed: no answer within 0.2 s"]

    async def test_nobody_there_is_a_failure(self, database: Path) -> None:
        async with gateway(database) as running:
            waiting(running, 1)
            await forwarded(running, NOWHERE)
            assert reasons(running) == ["attempt 2 of 2 failed: no answer: ClientConnectorError"]

    async def test_410_ends_it_and_the_message_stays_pending(self, database: Path) -> None:
        async with gateway(database) as running, receiving(status(410)) as receiver:
            waiting(running, 1, 2)
            (error,) = await forwarded(running, receiver.url)
            assert "answers 410" in error.message
            assert len(receiver.bodies) == 1
            assert reasons(running) == [None, None]
            assert running.delivered() == []

    async def test_long_answer_is_not_read_to_its_end(self, database: Path) -> None:
        async def endless(request: web.Request) -> web.StreamResponse:
            answer = web.StreamResponse(status=200)
            await answer.prepare(request)
            while True:
                await answer.write(b"x" * 65536)

        async with gateway(database) as running, receiving(endless) as receiver:
            waiting(running, 1)
            await forwarded(running, receiver.url)
            assert len(running.delivered()) == 1

    @pytest.mark.parametrize(
        ("header", "least", "most"),
        [
            ("120", 120, 120),
            ("99999999999", 3600, 3600),
            (formatdate(2**33, usegmt=True), 3600, 3600),
            (formatdate(0, usegmt=True), 0, 0),
            ("soon", 0, 0),
            ("-5", 0, 0),
            ("", 0, 0),
        ],
    )
    async def test_retry_after_is_honoured(self, header: str, least: float, most: float) -> None:
        async with receiving(status(503, **({"Retry-After": header} if header else {}))) as receiver:
            message = await one_message(receiver)
            assert least <= message <= most


async def one_message(receiver: Receiver) -> float:
    """Post a message, and return the pause that the failure asks for."""
    from ws_manager.client.handlers import AttemptFailed
    from ws_manager.client.receipts import AgentMessage
    from ws_manager.protocol.frames import parse_gateway_frame

    frame = (
        '{"type":"message","seq":1,"msg_id":"m","msg_type":"data","sender_id":null,"recipient_id":"ws-001",'
        '"broadcast_id":null,"sent_at":"2026-01-31T12:00:00.000000+00:00","content":1}'
    )
    message: Any = AgentMessage(parse_gateway_frame(frame), None)  # type: ignore[arg-type]
    async with Forwarder(receiver.url, CONTENT, None, None, lambda error: None) as forwarder:
        with pytest.raises(AttemptFailed) as failed:
            await forwarder(message)
    return failed.value.pause


class TestRequest:
    async def test_signatures_are_verified_by_standardwebhooks_during_a_rotation(
        self, database: Path, tmp_path: Path
    ) -> None:
        file = tmp_path / "secrets"
        file.write_text(f"{OLD}\n\n{NEW}\n")
        async with gateway(database) as running, receiving(status(200)) as receiver:
            waiting(running, {"text": "ünïcode", "n": 1.50})
            await forwarded(running, receiver.url, secrets=file)
            ((body, headers),) = zip(receiver.bodies, receiver.headers)
            for secret in (OLD, NEW):
                assert Webhook(secret).verify(body, dict(headers)) == {"text": "ünïcode", "n": 1.5}
            with pytest.raises(WebhookVerificationError):
                Webhook(base64.b64encode(b"x" * 32).decode()).verify(body, dict(headers))
            with pytest.raises(WebhookVerificationError):
                Webhook(OLD).verify(body + b" ", dict(headers))

    async def test_secrets_are_read_for_each_request(self, database: Path, tmp_path: Path) -> None:
        file = tmp_path / "secrets"
        file.write_text(OLD)

        async def rotated(request: web.Request) -> web.StreamResponse:
            file.write_text(NEW)
            return web.Response(status=500)

        async with gateway(database) as running, receiving(rotated, status(200)) as receiver:
            waiting(running, 1)
            await forwarded(running, receiver.url, secrets=file)
            for secret, headers in zip((OLD, NEW), receiver.headers):
                Webhook(secret).verify(b"1", dict(headers))

    async def test_without_secrets_nothing_is_signed(self, database: Path) -> None:
        async with gateway(database) as running, receiving(status(200)) as receiver:
            waiting(running, 1)
            await forwarded(running, receiver.url)
            (headers,) = receiver.headers
            assert "webhook-signature" not in headers
            assert headers["Content-Type"] == "application/json"
            assert headers["User-Agent"].startswith("ws-manager/")

    async def test_trace_of_the_message_is_passed_on(self, database: Path) -> None:
        trace = f"00-{'a' * 32}-{'b' * 16}-01"
        async with gateway(database) as running, receiving(status(200)) as receiver:
            running.offline()
            running.ledger.send("ws-001", 1, traceparent=trace)
            running.ledger.send("ws-001", 2)
            await forwarded(running, receiver.url)
            assert [headers.get("traceparent") for headers in receiver.headers] == [trace, None]

    async def test_text_and_the_whole_message_can_be_posted(self, database: Path) -> None:
        async with gateway(database) as running, receiving(status(200)) as receiver:
            (first,) = waiting(running, "a line\n")
            await forwarded(running, receiver.url, form=RAW)
            waiting(running, {"n": 1})
            await forwarded(running, receiver.url, form=ENVELOPE)
            assert receiver.bodies[0] == b"a line\n"
            assert receiver.headers[0]["Content-Type"] == "text/plain; charset=utf-8"
            assert b'"content":{"n":1}' in receiver.bodies[1]
            assert first == receiver.headers[0]["webhook-id"]

    async def test_headers_of_a_file_are_sent(self, database: Path, tmp_path: Path) -> None:
        file = tmp_path / "headers"
        file.write_text("Authorization: Bearer abc\nX-Team : no\n".replace(" :", ":"))
        async with gateway(database) as running, receiving(status(200)) as receiver:
            waiting(running, 1)
            await forwarded(running, receiver.url, headers=file)
            (headers,) = receiver.headers
            assert (headers["Authorization"], headers["X-Team"]) == ("Bearer abc", "no")


class TestRefused:
    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("example.com", "not an address"),
            ("ftp://example.com", "not an address"),
            ("http://", "not an address"),
            ("http://host:99999/", "not an address"),
            ("http://me:secret@host/", "has a user in it"),
        ],
    )
    def test_address(self, url: str, why: str) -> None:
        with pytest.raises(InvalidInput, match=why) as refused:
            Forwarder(url, CONTENT, None, None, lambda error: None)
        assert "secret" not in str(refused.value)

    @pytest.mark.parametrize("text", ["", "not base64!", f"{OLD}\nwhsec_\n"])
    def test_secrets(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "secrets"
        file.write_text(text)
        with pytest.raises(InvalidInput, match="does not hold secrets"):
            read_secrets(file)

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("no colon", "a line that is no header"),
            ("bad name: x", "a line that is no header"),
            (": x", "a line that is no header"),
            ("Content-Length: 5", "the command's own"),
            ("Webhook-Id: 5", "the command's own"),
        ],
    )
    def test_headers(self, tmp_path: Path, text: str, why: str) -> None:
        file = tmp_path / "headers"
        file.write_text(text)
        with pytest.raises(InvalidInput, match=why):
            Forwarder(NOWHERE, CONTENT, None, file, lambda error: None)

    def test_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="cannot read the secrets"):
            Forwarder(NOWHERE, CONTENT, tmp_path / "none", None, lambda error: None)
