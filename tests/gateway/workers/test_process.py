"""The process of a worker: it is killed if it does not answer, and one that cannot be started is tried again."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import Clock, until, within
from ws_manager.gateway.limits import Limits
from ws_manager.gateway.options import GatewayOptions
from ws_manager.gateway.own_quotas import OwnQuotas
from ws_manager.gateway.workers import channel as channels
from ws_manager.gateway.workers import process, supervisor
from ws_manager.gateway.workers.channel import Channel
from ws_manager.gateway.workers.process import WorkerProcess
from ws_manager.gateway.workers.shares import Share
from ws_manager.gateway.workers.supervisor import Supervisor

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="several workers need Linux")


async def test_one_that_does_not_answer_is_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(channels, "_ANSWER_SECONDS", 0.01)
    worker = WorkerProcess(1, Share(OwnQuotas(Limits(), Clock()), {}))
    silent = [sys.executable, "-c", "import time; time.sleep(600)"]
    assert await within(worker.run(silent, (), Channel({}), 0)) == -signal.SIGKILL
    assert [record.message for record in caplog.records] == ["worker 1 does not answer and is killed"]


async def test_one_that_cannot_be_started_again_leaves_the_others_alone(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    starts: list[int] = []
    ended = asyncio.Event()

    class Acted(WorkerProcess):
        """Says that it is ready. The second one ends at once, and cannot be started any more."""

        async def run(
            self, command: Sequence[str], descriptors: Sequence[int], channel: Channel, port: int
        ) -> int:
            starts.append(self.number)
            if starts.count(2) > 1 and self.number == 2:
                raise OSError("no more processes")
            self.ready = True
            channel._handlers["ready"](["http://127.0.0.1:1"])
            await (asyncio.sleep(0.01) if self.number == 2 else ended.wait())
            return 1

        def end(self, number: signal.Signals) -> None:
            ended.set()

    monkeypatch.setattr(supervisor, "WorkerProcess", Acted)
    monkeypatch.setattr(supervisor, "FIRST_WAIT", 0.001)
    stop: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()
    parent = Supervisor(GatewayOptions(database, port=0), 2, lambda number: [])
    running = asyncio.ensure_future(parent.run(stop, lambda urls: None, lambda why: None))
    await until(lambda: starts.count(2) > 3)
    assert (starts.count(1), ended.is_set()) == (1, False)
    assert any("worker 2 cannot be started: no more processes" in record.message for record in caplog.records)
    stop.set_result(signal.SIGTERM)
    # The exit code of the one that failed to end in order.
    assert await within(running) == 1
