"""`AgentClient` over gateways in processes of their own: they are killed or come late, and tokens expire."""

from __future__ import annotations

import asyncio
import collections
import json
import logging
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.processes import command, gateway_with_tokens, killed_gateways, load, running
from tests.support import until, within
from ws_manager import AgentClient, GatewayUnavailable, NotAuthorised, get_db

KILLS = 20
EACH = 25
"""Messages that arrive, beyond those of before, between two kills."""

HEARER = """
import asyncio, itertools, signal, sys
from ws_manager import AgentClient

# Every connection has lasted, so that the delays do not grow.
clock = itertools.count(0, 60).__next__

async def main(url):
    client = AgentClient("cipher", url=url, ws_id="ws-hears", clock=clock)

    @client.on("load", concurrency=4)
    async def load(message):
        # Its receipt is written after this: a line that is here, and not confirmed, has a lost receipt.
        print(message.msg_id, message.content["n"], flush=True)
        await asyncio.sleep(0.001 * (message.content["n"] % 3))

    async with client:
        working = asyncio.ensure_future(client.run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
        print("ready", flush=True)
        await asyncio.wait({working})

asyncio.run(main(sys.argv[1]))
"""

SPEAKER = """
import asyncio, itertools, json, sys
from ws_manager import AgentClient

clock = itertools.count(0, 60).__next__

async def main(url):
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    numbers = iter(range(1_000_000))
    sent = {}

    async def speak(client):
        while not ended.done():
            n = next(numbers)
            sent[n] = await client.send("ws-hears", {"n": n}, "load")
            await asyncio.sleep(0.04)

    client = AgentClient("octavia", url=url, ws_id="ws-speaks", clock=clock)
    async with client:
        await asyncio.gather(*(speak(client) for _ in range(3)))
    print(json.dumps(sent), flush=True)

asyncio.run(main(sys.argv[1]))
"""


def messages(database: Path) -> list[tuple[str, int, bool]]:
    """The msg_id, the number and the receipt of every message, in the order of their commits."""
    db = get_db(database)
    rows = db.execute("SELECT msg_id, content, delivered FROM messages ORDER BY id").fetchall()
    db.close()
    return [(msg_id, json.loads(content)["n"], bool(delivered)) for msg_id, content, delivered in rows]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_nothing_is_lost_or_handled_or_sent_twice(tmp_path: Path) -> None:
    database = tmp_path / "ledger.db"
    handled: list[str] = []
    with ExitStack() as stack:
        for left, url in killed_gateways(database, KILLS):
            if left == KILLS:
                hearer = stack.enter_context(running(sys.executable, "-c", HEARER, url))
                assert hearer.line() == "ready"
                speaker = stack.enter_context(
                    running(sys.executable, "-c", SPEAKER, url, stdin=subprocess.PIPE)
                )
            handled += [hearer.line() for _ in range(EACH)]
            if left:
                continue
            speaker.process.stdin.write("enough\n")
            speaker.process.stdin.flush()
            sent: dict[str, Any] = json.loads(speaker.line())
            assert speaker.wait() == 0, speaker.rest_of_errors()
            while len(set(handled)) < len(sent):
                handled.append(hearer.line())
            hearer.end()
            handled += hearer.lines()
            assert hearer.rest_of_errors() == []
    in_ledger = messages(database)
    # What was sent is there, once each, under the ids that the senders were told.
    assert sorted((n, msg_id) for msg_id, n, _ in in_ledger) == sorted(
        (int(n), msg_id) for n, msg_id in sent.items()
    )
    # All of it was handled once, also where a receipt was lost: the client knows what it has handled.
    assert collections.Counter(handled) == collections.Counter(f"{msg_id} {n}" for msg_id, n, _ in in_ledger)
    assert all(confirmed for _, _, confirmed in in_ledger)


def made_token(database: Path, seconds: int) -> str:
    """A token for octavia, made by the command."""
    scope = ("--scope", "connect send")
    return command(database, "token", "octavia", "--ttl", f"{seconds}s", *scope).stdout.strip()


class TestTokens:
    async def test_a_function_is_asked_again_and_nothing_is_lost_or_sent_twice(self, database: Path) -> None:
        made: list[str] = []
        lost: list[str] = []
        got: list[int] = []
        sent: list[str] = []

        def token() -> str:
            made.append(made_token(database, 3))
            return made[-1]

        assert command(database, "connect", "cipher", "--ws-id", "ws-002").returncode == 0
        with gateway_with_tokens(database) as (_, url):
            async with AgentClient(
                "octavia",
                url=url,
                ws_id="ws-001",
                token=token,
                on_lost=lambda cause, delay: lost.append(cause),
            ) as client:

                async def receive() -> None:
                    async for message in client:
                        async with message:
                            got.append(message.content)

                async def send() -> None:
                    while True:
                        sent.append(await client.send("ws-002", len(sent)))
                        await asyncio.sleep(0.02)  # within the 100 frames a second that a gateway takes

                work = [asyncio.ensure_future(receive()), asyncio.ensure_future(send())]
                with load(database, "ws-001") as committed:
                    await until(lambda: len(lost) == 3)
                await until(lambda: len(got) >= len(committed))
                for task in work:
                    task.cancel()
                await asyncio.wait(work)
        assert got == committed
        assert all(cause.endswith("(4001)") for cause in lost), lost
        assert len(set(made)) == len(made) > 3
        db = get_db(database)
        rows = db.execute("SELECT msg_id FROM messages WHERE recipient_id = 'ws-002' ORDER BY id").fetchall()
        db.close()
        # The last one may have been cancelled before its answer.
        assert [row[0] for row in rows][: len(sent)] == sent
        assert len(rows) - len(sent) in (0, 1)

    async def test_a_function_that_fails_as_a_gateway_does_is_asked_again(self, database: Path) -> None:
        lost: list[str] = []
        asked = iter(range(3))

        def token() -> str:
            number = next(asked)
            if number == 1:
                raise GatewayUnavailable("no new token at the moment")
            return made_token(database, 3 if number == 0 else 600)

        with gateway_with_tokens(database) as (_, url):
            async with AgentClient(
                "octavia",
                url=url,
                ws_id="ws-001",
                token=token,
                on_lost=lambda cause, delay: lost.append(cause),
            ) as client:
                await until(lambda: len(lost) == 2)
                assert lost[1] == "no new token at the moment"
                assert command(database, "send", "ws-001", "1").returncode == 0
                (message,) = await within(client.batch(1))
                assert message.content == 1

    async def test_text_that_has_expired_is_tried_once(self, database: Path) -> None:
        lost: list[str] = []
        with gateway_with_tokens(database) as (_, url):
            token = made_token(database, 3)

            async def connect() -> None:
                async with AgentClient(
                    "octavia",
                    url=url,
                    token=token,
                    wait_for_gateway=True,
                    on_lost=lambda cause, delay: lost.append(cause),
                ) as client:
                    await client.batch(1)

            for cause in ("4001", "401"):
                with pytest.raises(NotAuthorised, match=rf"\({cause}\)"):
                    await within(connect())
        assert lost == []

    async def test_text_that_expires_while_the_gateway_is_away_ends_it(self, database: Path) -> None:
        lost: list[str] = []
        with gateway_with_tokens(database) as (program, url):
            async with AgentClient(
                "octavia",
                url=url,
                token=made_token(database, 2),
                on_lost=lambda cause, delay: lost.append(cause),
            ) as client:
                program.end(signal.SIGKILL)
                await until(lambda: len(lost) > 2)
                with gateway_with_tokens(database, "--port", url.rpartition(":")[2]):
                    with pytest.raises(NotAuthorised, match=r"401|4001"):
                        await within(client.batch(1))
                    attempts = len(lost)
                    with pytest.raises(NotAuthorised):
                        await client.send("ws-002", 1)
                    assert len(lost) == attempts


class TestGatewayThatIsNotThere:
    async def test_is_an_error(self, database: Path) -> None:
        with gateway_with_tokens(database) as (program, url):
            program.end()
        with pytest.raises(GatewayUnavailable):
            async with AgentClient("octavia", url=url, token=made_token(database, 60)):
                pass

    async def test_is_waited_for_if_that_is_asked_for(self, database: Path) -> None:
        lost: list[str] = []
        connected: list[bool] = []
        with gateway_with_tokens(database) as (program, url):
            program.end()
        client = AgentClient(
            "octavia",
            url=url,
            ws_id="ws-001",
            token=lambda: made_token(database, 60),
            wait_for_gateway=True,
            on_lost=lambda cause, delay: lost.append(cause),
            on_connected=lambda greeting: connected.append(greeting.resumed),
        )

        async def receive() -> str:
            async with client:
                (message,) = await client.batch(1)
                return str(message.content)

        receiving = asyncio.ensure_future(receive())
        await until(lambda: len(lost) > 1)
        with gateway_with_tokens(database, "--port", url.rpartition(":")[2]):
            await until(lambda: connected)
            assert command(database, "send", "ws-001", "hello").returncode == 0
            assert await within(receiving) == "hello"


class TestHandlerThatRaises:
    async def test_ends_nothing_and_its_message_is_tried_again_or_set_aside(
        self, database: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        calls: list[str] = []
        with gateway_with_tokens(database) as (_, url):
            client = AgentClient(
                "octavia", url=url, ws_id="ws-001", token=made_token(database, 600), jitter=lambda: 0
            )

            @client.on("work", attempts=2)
            async def work(message: Any) -> None:
                calls.append(message.content)
                if message.content == "never" or calls.count(message.content) < 2:
                    raise LookupError(message.content)

            async with client:
                running_client = asyncio.ensure_future(client.run())
                contents = ["second time", "never", "second time too"]
                for content in contents:
                    assert command(database, "send", "ws-001", content, "--type", "work").returncode == 0
                db = get_db(database)
                query = "SELECT delivered, reject_reason FROM messages ORDER BY id"
                await until(lambda: all(row[0] or row[1] for row in db.execute(query)))
                outcome = [tuple(row) for row in db.execute(query)]
                db.close()
                assert not running_client.done()
                running_client.cancel()
                await asyncio.wait({running_client})
        assert outcome == [(1, None), (0, "LookupError"), (1, None)]
        assert calls == [content for content in contents for _ in range(2)]
        errors = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert [record.name for record in errors] == ["ws_manager.client"] * 4
