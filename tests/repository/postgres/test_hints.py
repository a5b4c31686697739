"""Hints: who gets one, when it is sent, and that nothing depends on it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Collection, Iterator
from typing import Optional

import psycopg
import pytest

from tests.support import LIMIT, open_socket
from ws_manager import Ledger, open_ledger
from ws_manager.errors import LedgerError
from ws_manager.models import Receipt
from ws_manager.repository.postgres import changes, hints
from ws_manager.repository.postgres.changes import Changes
from ws_manager.repository.postgres.database import Database
from ws_manager.repository.postgres.hints import EVERYTHING, Announcer, announcer_of, channel_of


@pytest.fixture(autouse=True)
def _new_announcers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no announcer of an earlier test send, whose session that test has ended."""
    monkeypatch.setattr(hints, "_announcers", {})


@pytest.fixture
def ledger(postgres_url: str) -> Iterator[Ledger]:
    """An empty ledger."""
    with open_ledger(postgres_url) as ledger:
        yield ledger


@pytest.fixture
def never_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody look without a hint."""
    monkeypatch.setattr(changes, "_SWEEP_SECONDS", 3600.0)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """What hints are sent, each as its channels."""
    sent: list[set[str]] = []
    send = Database.send_hint

    def noted(db: Database, channels: Collection[str]) -> None:
        sent.append(set(channels))
        send(db, channels)

    monkeypatch.setattr(Database, "send_hint", noted)
    return sent


@contextlib.contextmanager
def watching(url: str, gateway: Optional[str] = None) -> Iterator[Changes]:
    """What a watcher sees that has looked once."""
    db = Database(url)
    watcher = Changes(db, gateway)
    assert watcher.happened()
    try:
        yield watcher
    finally:
        watcher.close()
        db.close()


def heard(watcher: Changes) -> None:
    """Wait until a watcher sees something."""
    end = threading.Event()
    timer = threading.Timer(LIMIT, end.set)
    timer.start()
    while not watcher.happened():
        watcher.wait()
        assert not end.is_set()
    timer.cancel()


class FakeSession:
    """Keeps what it should send."""

    def __init__(self) -> None:
        self.sent: list[set[str]] = []
        self.some = threading.Event()

    def send_hint(self, channels: Collection[str]) -> None:
        """Note it."""
        self.sent.append(set(channels))
        self.some.set()

    def close(self) -> None:
        """Nothing is left to do."""


class TestAnnouncer:
    def test_the_first_goes_out_at_once_and_a_burst_behind_it_together(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hints, "EVERY_SECONDS", 0.3)
        own, thread = FakeSession(), FakeSession()
        announcer = Announcer(lambda: thread)
        announcer.announce(own, {"first"})
        assert own.sent == [{"first"}]
        for number in range(50):
            announcer.announce(own, {f"channel-{number % 3}"})
        assert thread.some.wait(LIMIT)
        assert own.sent == [{"first"}]
        assert thread.sent == [{"channel-0", "channel-1", "channel-2"}]

    def test_one_alone_starts_no_thread(self) -> None:
        connected: list[FakeSession] = []

        def connect() -> FakeSession:
            connected.append(FakeSession())
            return connected[-1]

        own, clock = FakeSession(), [0.0]
        announcer = Announcer(connect, lambda: clock[0])
        for _ in range(3):
            announcer.announce(own, {"a"})
            clock[0] += 1.0
        assert len(own.sent) == 3
        assert connected == []

    def test_what_waits_goes_out_when_a_session_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hints, "EVERY_SECONDS", 0.3)
        own, thread = FakeSession(), FakeSession()
        announcer = Announcer(lambda: thread)
        for number in range(3):
            announcer.announce(own, {str(number)})
        announcer.flush(own)
        announcer.flush(own)
        assert own.sent == [{"0"}, {"1", "2"}]

    def test_a_thread_that_cannot_connect_tries_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hints, "EVERY_SECONDS", 0.05)
        own, thread, tried = FakeSession(), FakeSession(), threading.Event()

        def connect() -> FakeSession:
            if tried.is_set():
                return thread
            tried.set()
            raise LedgerError("it cannot be reached")

        announcer = Announcer(connect)
        announcer.announce(own, {"first"})
        announcer.announce(own, {"lost"})
        assert tried.wait(LIMIT)
        while not thread.some.is_set():
            announcer.announce(own, {"next"})
        assert thread.sent[0] == {"next"}

    def test_a_thread_that_cannot_send_goes_on(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        """The sessions of both are lost: the next commit is made, and its hint is sent, on others."""
        ledger.connect("octavia", "ws-001")
        with watching_all_lost(ledger) as watcher:
            for number in range(5):
                assert ledger.send("ws-001", number) is not None
            heard(watcher)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
    def test_a_child_process_has_its_own(self) -> None:
        announcer = announcer_of("postgresql://nowhere/", FakeSession)
        assert announcer_of("postgresql://nowhere/", FakeSession) is announcer
        child = os.fork()
        if not child:
            os._exit(int(announcer_of("postgresql://nowhere/", FakeSession) is announcer))
        assert os.waitpid(child, 0)[1] == 0


@contextlib.contextmanager
def watching_all_lost(ledger: Ledger) -> Iterator[Changes]:
    """End every session of the ledger's database, and watch it afterwards."""
    url = url_of(ledger)
    for number in range(3):
        ledger.send("ws-001", number)
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with contextlib.suppress(Exception):
        # The first statement on a lost session fails.
        ledger.send("ws-001", "lost")
    with watching(url) as watcher:
        yield watcher


def url_of(ledger: Ledger) -> str:
    db = ledger._store.db  # type: ignore[attr-defined]
    assert isinstance(db, Database)
    return db.url


class TestWhoIsWoken:
    def test_a_message_wakes_the_gateway_that_has_the_connection_and_no_other(
        self, ledger: Ledger, postgres_url: str, never_swept: None
    ) -> None:
        open_socket(ledger, "octavia", "ws-a", gateway="a")
        open_socket(ledger, "octavia", "ws-b", gateway="b")
        with watching(postgres_url, "a") as a, watching(postgres_url, "b") as b:
            message = ledger.send("ws-a", "1")
            heard(a)
            assert message is not None
            assert message.db_id is not None
            ledger.delivery.settle([Receipt("ws-a", 1, [message.db_id])])
            assert not a.happened()
            ledger.send("ws-b", "2")
            heard(b)
            # What b has heard is the last that was sent: there was nothing else for it, and nothing more for a.
            assert b._db.hints(channel_of("b")) == 1
            assert not b.happened()
            assert not a.happened()

    @pytest.mark.parametrize("what", ["disconnect", "a take-over"])
    def test_an_event_wakes_every_gateway(
        self, ledger: Ledger, postgres_url: str, never_swept: None, what: str
    ) -> None:
        open_socket(ledger, "octavia", "ws-a", gateway="a")
        with watching(postgres_url, "a") as a, watching(postgres_url, "b") as b:
            if what == "disconnect":
                ledger.disconnect("ws-a")
            else:
                open_socket(ledger, "octavia", "ws-a", gateway="b")
            heard(a)
            heard(b)

    def test_a_broadcast_wakes_the_gateways_of_its_recipients(
        self, ledger: Ledger, sent: list[set[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hints, "EVERY_SECONDS", 0.0)
        for ws_id, agent, gateway in (("1", "octavia", "a"), ("2", "octavia", "b"), ("3", "aria", "c")):
            open_socket(ledger, agent, ws_id, gateway=gateway)
        ledger.connect("octavia", "4")
        sent.clear()
        ledger.broadcast("news", agent="octavia")
        assert sent == [{EVERYTHING, channel_of("a"), channel_of("b")}]

    def test_who_follows_everything_hears_of_receipts(
        self, ledger: Ledger, postgres_url: str, never_swept: None
    ) -> None:
        open_socket(ledger, "octavia", "ws-a", gateway="a")
        message = ledger.send("ws-a", "1")
        assert message is not None
        assert message.db_id is not None
        with watching(postgres_url) as everything, watching(postgres_url, "a") as a:
            ledger.delivery.settle([Receipt("ws-a", 1, [message.db_id])])
            heard(everything)
            assert not a.happened()
            a.widen(True)
            assert a.happened()
            ledger.delivery.settle([Receipt("ws-a", 1, [message.db_id])])
            heard(a)
            a.widen(False)
            while a.happened():
                pass
            ledger.delivery.settle([Receipt("ws-a", 1, [message.db_id])])
            heard(everything)
            assert not a.happened()

    def test_nothing_is_sent_to_everybody_where_nobody_listens(
        self, ledger: Ledger, postgres_url: str, never_swept: None
    ) -> None:
        with psycopg.connect(postgres_url, autocommit=True) as session:
            # Without the lock that tells it.
            session.execute(f"LISTEN {EVERYTHING}")
            ledger.bar("octavia")
            with watching(postgres_url, "a") as a:
                ledger.connect("aria", "ws-001")
                heard(a)
            assert not list(session.notifies(timeout=0))
            with watching(postgres_url) as everything:
                ledger.bar("lucidia")
                heard(everything)
            assert list(session.notifies(timeout=LIMIT, stop_after=1))

    def test_a_session_that_is_opened_again_listens_again(self, ledger: Ledger, never_swept: None) -> None:
        ledger.connect("octavia", "ws-001")
        with watching(url_of(ledger)) as watcher:
            pid = watcher._db.session.info.backend_pid
            with psycopg.connect(url_of(ledger), autocommit=True) as session:
                session.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
            with pytest.raises(Exception, match="has failed"):
                watcher.wait()
            # It may have missed something.
            assert watcher.happened()
            assert not watcher.happened()
            ledger.send("ws-001", "1")
            heard(watcher)

    def test_several_on_one_session(self, ledger: Ledger, never_swept: None) -> None:
        ledger.connect("octavia", "ws-001")
        first, second = ledger.changes(), ledger.changes()
        assert first.happened()
        assert second.happened()
        first.close()
        ledger.send("ws-001", "1")
        heard(second)  # type: ignore[arg-type]

    def test_names_that_are_too_long_are_cut_off(self) -> None:
        assert len(channel_of("ü" * 100).encode()) <= 63
