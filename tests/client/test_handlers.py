"""Handlers of messages: dispatch, order, concurrency, failures and the end, against the real gateway."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from tests.support import RunningGateway, gateway, until, within
from ws_manager.client import dialer
from ws_manager.client.agent import AgentClient
from ws_manager.client.receipts import AgentMessage
from ws_manager.errors import Conflict, InvalidInput
from ws_manager.protocol.frames import ack_frame

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a backoff here."""
    monkeypatch.setattr(dialer, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(dialer, "LONGEST_DELAY", 0.008)
    monkeypatch.setattr("ws_manager.client.worker.FIRST_PAUSE", 0.001)


@contextlib.asynccontextmanager
async def connected(database: Path) -> AsyncIterator[tuple[RunningGateway, AgentClient]]:
    """A gateway, and a client that is connected to it as ws-001."""
    async with (
        gateway(database) as running,
        AgentClient("octavia", url=running.url, ws_id="ws-001") as client,
    ):
        yield running, client


@contextlib.asynccontextmanager
async def handling(client: AgentClient, grace: float = 30.0) -> AsyncIterator[asyncio.Task[None]]:
    """A client that runs its handlers until the block ends."""
    task = asyncio.create_task(client.run(grace=grace))
    try:
        yield task
    finally:
        task.cancel()
        await within(asyncio.wait({task}))


def send(running: RunningGateway, content: object, msg_type: str = "data") -> int:
    """Commit a message of a type, and return its number."""
    message = running.ledger.send("ws-001", content, msg_type)
    assert message is not None
    assert message.db_id is not None
    return message.db_id


def rejections(running: RunningGateway) -> list[Optional[str]]:
    """Why each message was rejected, in order; None for those that were not."""
    return [row[0] for row in running.db.rows("SELECT reject_reason FROM messages ORDER BY id")]


class Gate:
    """A handler that notes what it gets and waits until the test lets it go on."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.ended: list[Any] = []
        self._open: set[Any] = set()
        self._changed = asyncio.Event()

    async def __call__(self, message: AgentMessage) -> None:
        """Handle a message."""
        self.begun.append(message.content)
        while message.content not in self._open:
            self._changed.clear()
            await self._changed.wait()
        self.ended.append(message.content)

    def let(self, *contents: object) -> None:
        """Let messages go on."""
        self._open.update(contents)
        self._changed.set()


class TestWhich:
    async def test_message_goes_to_the_handler_of_its_type(self, database: Path) -> None:
        got: list[tuple[str, Any]] = []
        async with connected(database) as (running, client):

            @client.on("deploy")
            async def deploy(message: AgentMessage) -> None:
                got.append(("deploy", message.content))

            @client.on()
            async def others(message: AgentMessage) -> None:
                got.append(("others", message.content))

            async with handling(client):
                seqs = [send(running, 1, "deploy"), send(running, 2, "note"), send(running, 3)]
                await running.confirmed(*seqs)
            assert sorted(got, key=lambda each: each[1]) == [("deploy", 1), ("others", 2), ("others", 3)]

    async def test_message_without_a_handler_is_rejected(self, database: Path) -> None:
        async with connected(database) as (running, client):
            client.on("deploy")(Gate())
            async with handling(client):
                send(running, 1, "note")
                await running.until(lambda: rejections(running) == ["no handler for messages of type 'note'"])

    async def test_function_is_given_back(self) -> None:
        async def deploy(message: AgentMessage) -> None:
            pass

        assert AgentClient("octavia", url=NOWHERE).on("deploy")(deploy) is deploy


class TestWhatIsNoHandler:
    @pytest.mark.parametrize(
        "function",
        [
            lambda message: None,
            functools.partial(print, "a message"),
            Gate,
            pytest.param(logging.Handler(), id="not callable"),
        ],
    )
    def test_sync_function_is_refused(self, function: Callable[..., Any]) -> None:
        with pytest.raises(InvalidInput, match=r"a handler is an async function, and .* is not"):
            AgentClient("octavia", url=NOWHERE).on("deploy")(function)

    def test_decorator_without_parentheses_is_refused(self) -> None:
        async def deploy(message: AgentMessage) -> None:
            pass

        with pytest.raises(InvalidInput, match="message type"):
            AgentClient("octavia", url=NOWHERE).on(deploy)(deploy)  # type: ignore[arg-type]

    @pytest.mark.parametrize("msg_type", ["deploy", None])
    def test_second_handler_of_a_type_is_refused(self, msg_type: Optional[str]) -> None:
        client = AgentClient("octavia", url=NOWHERE)

        async def deploy(message: AgentMessage) -> None:
            pass

        client.on(msg_type)(deploy)
        with pytest.raises(InvalidInput, match="already"):
            client.on(msg_type)(deploy)

    @pytest.mark.parametrize("name", ["concurrency", "attempts"])
    @pytest.mark.parametrize("number", [0, -1, 1.5, True])
    def test_number_below_one_is_refused(self, name: str, number: Any) -> None:
        async def deploy(message: AgentMessage) -> None:
            pass

        with pytest.raises(InvalidInput, match=name):
            AgentClient("octavia", url=NOWHERE).on("deploy", **{name: number})(deploy)

    def test_partial_of_an_async_function_is_one(self) -> None:
        async def deploy(place: str, message: AgentMessage) -> None:
            pass

        AgentClient("octavia", url=NOWHERE).on("deploy")(functools.partial(deploy, "here"))

    async def test_run_without_a_handler_is_refused(self, database: Path) -> None:
        async with connected(database) as (_, client):
            with pytest.raises(InvalidInput, match="no handler"):
                await client.run()

    async def test_second_run_is_refused(self, database: Path) -> None:
        async with connected(database) as (_, client):
            client.on()(Gate())
            async with handling(client):
                await asyncio.sleep(0)
                with pytest.raises(InvalidInput, match="already"):
                    await client.run()


class TestConcurrency:
    async def test_one_at_a_time_gets_them_in_order(self, database: Path) -> None:
        gate = Gate()
        async with connected(database) as (running, client):
            client.on()(gate)
            async with handling(client):
                seqs = [send(running, n) for n in range(5)]
                await until(lambda: gate.begun == [0])
                gate.let(1, 2, 3, 4)
                await within(client.send("ws-001", 5))
                assert gate.begun == [0]
                gate.let(0, 5)
                await running.confirmed(*seqs)
                assert gate.ended[:5] == [0, 1, 2, 3, 4]

    async def test_so_many_at_once_and_no_more(self, database: Path) -> None:
        gate = Gate()
        async with connected(database) as (running, client):
            client.on(concurrency=3)(gate)
            async with handling(client):
                for n in range(5):
                    send(running, n)
                await until(lambda: len(gate.begun) == 3)
                gate.let(1)
                await until(lambda: len(gate.begun) == 4)
                assert gate.ended == [1]
                gate.let(0, 2, 3, 4)
                await until(lambda: len(gate.ended) == 5)

    async def test_busy_handler_does_not_hold_up_another(self, database: Path) -> None:
        slow, quick = Gate(), Gate()
        async with connected(database) as (running, client):
            client.on("slow")(slow)
            client.on("quick")(quick)
            async with handling(client):
                send(running, 1, "slow")
                send(running, 2, "slow")
                send(running, 3, "quick")
                quick.let(3)
                await until(lambda: quick.ended == [3])
                assert slow.begun == [1]
                slow.let(1, 2)

    async def test_only_the_finished_prefix_is_confirmed(self, database: Path) -> None:
        gate = Gate()
        async with connected(database) as (running, client):
            client.on(concurrency=4)(gate)
            async with handling(client):
                written: list[str] = []
                write = client._receipts._write

                async def noted(frame: str) -> None:
                    written.append(frame)
                    await write(frame)

                client._receipts._write = noted
                seqs = [send(running, n) for n in range(4)]
                await until(lambda: len(gate.begun) == 4)
                gate.let(2)
                await until(lambda: gate.ended == [2])
                gate.let(0, 3)
                await until(lambda: len(gate.ended) == 3)
                await running.confirmed(seqs[0])
                gate.let(1)
                await running.confirmed(*seqs)
                assert written == [ack_frame(seqs[0]), ack_frame(seqs[3])]

    async def test_what_was_finished_beyond_the_prefix_is_not_done_again_after_a_reconnect(
        self, database: Path
    ) -> None:
        gate = Gate()
        greetings: list[object] = []
        async with (
            gateway(database) as running,
            AgentClient("octavia", url=running.url, ws_id="ws-001", on_connected=greetings.append) as client,
        ):
            client.on(concurrency=2)(gate)
            async with handling(client):
                seqs = [send(running, n) for n in range(2)]
                gate.let(1)
                await until(lambda: gate.ended == [1])
                running.offline()
                await until(lambda: len(greetings) == 2)
                gate.let(0)
                await running.confirmed(*seqs)
                assert sorted(gate.begun) == [0, 1]


class TestFailure:
    async def test_is_tried_again(self, database: Path) -> None:
        tries: list[Any] = []
        async with connected(database) as (running, client):

            @client.on()
            async def third_time(message: AgentMessage) -> None:
                tries.append(message.content)
                if len(tries) < 3:
                    raise ValueError

            async with handling(client):
                await running.confirmed(send(running, 1))
                assert tries == [1, 1, 1]

    async def test_is_rejected_after_the_last_try_and_ends_nothing(self, database: Path) -> None:
        tries: list[Any] = []
        async with connected(database) as (running, client):

            @client.on(attempts=2)
            async def picky(message: AgentMessage) -> None:
                tries.append(message.content)
                if message.content == 1:
                    raise LookupError("a secret")

            async with handling(client):
                send(running, 1)
                second = send(running, 2)
                await running.confirmed(second)
                assert tries == [1, 1, 2]
                assert running.delivered() == [second]
                assert rejections(running) == ["LookupError", None]

    async def test_is_logged_without_the_content(
        self, database: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with connected(database) as (running, client):

            @client.on(attempts=1)
            async def tells(message: AgentMessage) -> None:
                raise ValueError(message.content)

            async with handling(client):
                send(running, "sEcReT")
                await running.until(lambda: rejections(running) == ["ValueError"])
        (record,) = [record for record in caplog.records if record.name == "ws_manager.client"]
        assert record.levelno == logging.ERROR
        assert f"attempt 1 of 1 failed: the handler raised ValueError at {__file__}:" in record.getMessage()
        assert "sEcReT" not in caplog.text

    async def test_cancelled_error_of_a_handler_is_a_failure_like_any(self, database: Path) -> None:
        async with connected(database) as (running, client):

            @client.on(attempts=2)
            async def cancelled(message: AgentMessage) -> None:
                raise asyncio.CancelledError

            async with handling(client) as task:
                send(running, 1)
                await running.until(lambda: rejections(running) == ["CancelledError"])
                assert not task.done()

    async def test_within_its_own_block_is_tried_again_too(self, database: Path) -> None:
        tries: list[Any] = []
        async with connected(database) as (running, client):

            @client.on()
            async def second_time(message: AgentMessage) -> None:
                async with message:
                    tries.append(message.content)
                    if len(tries) < 2:
                        raise ValueError

            async with handling(client):
                await running.confirmed(send(running, 1))
                assert tries == [1, 1]

    async def test_of_its_own_block_brings_no_second_call_while_the_first_goes_on(
        self, database: Path
    ) -> None:
        tries: list[Any] = []
        go_on = asyncio.Event()
        greetings: list[object] = []
        async with (
            gateway(database) as running,
            AgentClient("octavia", url=running.url, ws_id="ws-001", on_connected=greetings.append) as client,
        ):

            @client.on(concurrency=2)
            async def recovers(message: AgentMessage) -> None:
                tries.append(message.content)
                with contextlib.suppress(ValueError):
                    async with message:
                        raise ValueError
                await go_on.wait()

            async with handling(client):
                seq = send(running, 1)
                await until(lambda: tries)
                running.offline()
                await until(lambda: len(greetings) == 2)
                # Comes after the message that is sent again.
                send(running, 2)
                await until(lambda: len(tries) == 2)
                assert tries == [1, 2]
                go_on.set()
                await running.confirmed(seq)

    async def test_own_rejection_stays(self, database: Path) -> None:
        async with connected(database) as (running, client):

            @client.on()
            async def refuses(message: AgentMessage) -> None:
                await client.reject(message, "not mine")

            async with handling(client):
                send(running, 1)
                await running.until(lambda: rejections(running) == ["not mine"])


class TestEnd:
    async def test_terminal_close_ends_it_with_its_error(self, database: Path) -> None:
        async with connected(database) as (running, client):
            client.on()(Gate())
            async with handling(client) as task:
                running.ledger.disconnect("ws-001")
                with pytest.raises(Conflict, match=r"disconnected by an operator \(4010\)"):
                    await within(asyncio.shield(task))

    async def test_cancellation_lets_what_runs_finish_and_begins_nothing(self, database: Path) -> None:
        gate = Gate()
        async with connected(database) as (running, client):
            client.on()(gate)
            async with handling(client) as task:
                seqs = [send(running, n) for n in range(2)]
                await until(lambda: gate.begun)
                task.cancel()
                await asyncio.sleep(0)
                gate.let(0, 1)
                with pytest.raises(asyncio.CancelledError):
                    await within(task)
            assert gate.begun == gate.ended == [0]
            await running.confirmed(seqs[0])
            assert running.delivered() == seqs[:1]

    async def test_grace_that_runs_out_cancels_what_runs_and_leaves_it_pending(
        self, database: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        gate = Gate()
        async with connected(database) as (running, client):
            client.on(attempts=1)(gate)
            async with handling(client, grace=0.01) as task:
                send(running, 0)
                await until(lambda: gate.begun)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await within(task)
            assert (gate.ended, running.delivered(), rejections(running)) == ([], [], [None])
        # It did not count as a failure.
        assert "ws_manager.client" not in {record.name for record in caplog.records}

    async def test_second_cancellation_ends_the_grace(self, database: Path) -> None:
        gate = Gate()
        async with connected(database) as (running, client):
            client.on()(gate)
            async with handling(client, grace=3600) as task:
                send(running, 0)
                await until(lambda: gate.begun)
                task.cancel()
                await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await within(task)
            assert gate.ended == []

    async def test_pause_of_a_failed_one_is_not_waited_for(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ws_manager.client.worker.FIRST_PAUSE", 3600)
        tried = asyncio.Event()
        async with connected(database) as (running, client):

            @client.on()
            async def fails(message: AgentMessage) -> None:
                tried.set()
                raise ValueError

            async with handling(client, grace=3600) as task:
                send(running, 0)
                await within(tried.wait())
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await within(task)
            assert rejections(running) == [None]
