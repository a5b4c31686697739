"""`HeldWorker`: what it does when the gateway goes away, or its answers do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.road import Road, ledger_behind
from tests.support import gateway_in_a_thread, run, until
from ws_manager import GatewayUnavailable, Ledger, open_ledger
from ws_manager.cli.process.stream import Stop
from ws_manager.cli.work.held import HeldWorker
from ws_manager.cli.work.job import CONTENT
from ws_manager.cli.work.options import Work
from ws_manager.client import api, worker
from ws_manager.client.worker import new_worker


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses."""
    monkeypatch.setattr(api, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(api, "_LONGEST_PAUSE", 0.002)
    monkeypatch.setattr(worker, "FIRST_PAUSE", 0.001)


class Scene:
    """A worker behind a road, whose command waits until it is let go."""

    def __init__(self, local: Ledger, receiver: HeldWorker, road: Road, folder: Path, msg_id: str) -> None:
        self.receiver = receiver
        self.road = road
        self._local = local
        self._folder = folder
        self._msg_id = msg_id

    def work(self, meanwhile: Callable[[], object]) -> bool:
        """Make one attempt; while its command runs, do something."""

        def let_go() -> None:
            run(until(lambda: self.seen() and not (self._folder / "end").exists()))
            meanwhile()
            (self._folder / "end").touch()

        thread = threading.Thread(target=let_go)
        thread.start()
        try:
            return self.receiver.receive()
        finally:
            thread.join()

    def seen(self) -> list[str]:
        """The attempts that were begun: the seq and the number of each."""
        path = self._folder / "seen"
        return path.read_text().splitlines() if path.exists() else []

    def outcome(self) -> Any:
        """What has become of the message."""
        message = self._local.message(self._msg_id)
        assert message is not None
        return message.delivered or message.reject_reason


@pytest.fixture
def scene(database: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A message waits for ws-001, and its command ends with the exit code that the test gives."""
    code = f'echo "$WS_SEQ $WS_ATTEMPT" >> {tmp_path}/seen; until [ -e {tmp_path}/end ]; do sleep 0.01; done'
    work = Work(
        command=("bash", "-c", f"{code}; exit {request.param}"),
        url=None,
        form=CONTENT,
        replies=False,
        concurrency=1,
        max_attempts=2,
        timeout=60.0,
        kill_after=1.0,
        secrets=None,
        headers=None,
    )
    with gateway_in_a_thread(database) as url, open_ledger(database) as local:
        local.connect("octavia", "ws-001")
        sent = local.send("ws-001", 1)
        assert sent is not None
        stop = Stop()
        with (
            ledger_behind(int(url.rpartition(":")[2])) as (ledger, road),
            ledger.delivery.holding("ws-001", new_worker(2)) as connection,
        ):
            receiver = HeldWorker(ledger.delivery, connection, work, stop, 30.0, None)
            yield Scene(local, receiver, road, tmp_path, sent.msg_id)
            road.come_back()
        stop.close()


EXPECTED = {0: True, 65: "exit code 65", 1: "attempt 2 of 2 failed: exit code 1"}


@pytest.mark.parametrize(("scene", "code"), [(code, code) for code in EXPECTED], indirect=["scene"])
def test_what_could_not_be_told_is_told_when_the_gateway_is_back(scene: Scene, code: int) -> None:
    if code == 0:
        assert scene.work(scene.road.go_away)
    else:
        with pytest.raises(GatewayUnavailable):
            scene.work(scene.road.go_away)
    assert scene.outcome() is None
    with pytest.raises(GatewayUnavailable):
        scene.receiver.receive()
    scene.road.come_back()
    while scene.receiver.receive():
        pass
    assert scene.outcome() == EXPECTED[code]
    assert scene.seen() == (["1 1", "1 2"] if code == 1 else ["1 1"])
    assert scene.receiver.received == 1


@pytest.mark.parametrize(("scene", "code"), [(code, code) for code in EXPECTED], indirect=["scene"])
def test_an_answer_that_was_lost_changes_nothing(scene: Scene, code: int) -> None:
    scene.work(scene.road.lose_the_next)
    if code == 1:
        # Of the last attempt too.
        scene.road.lose_the_next()
    while scene.receiver.receive():
        pass
    assert scene.outcome() == EXPECTED[code]
    assert scene.seen() == (["1 1", "1 2"] if code == 1 else ["1 1"])
    assert scene.receiver.received == 1
