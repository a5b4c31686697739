"""What `doctor` finds in a ledger in PostgreSQL, and that it changes nothing."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import psycopg
import pytest

from tests.postgres import PASSWORD, Server
from ws_manager import open_ledger
from ws_manager.remedies import MAKE_LEDGER, START_GATEWAY
from ws_manager.repository.engines import engine_of
from ws_manager.repository.findings import OK, PROBLEM, WARNING, Finding
from ws_manager.repository.postgres import doctor
from ws_manager.repository.postgres.database import Database


def examine(url: str) -> dict[str, Finding]:
    """Return what is found, by what was looked at. The password is nowhere."""
    found = list(engine_of(url).examine(url))
    assert PASSWORD not in repr(found)
    assert len({finding.check for finding in found}) == len(found)
    return {finding.check: finding for finding in found}


@pytest.fixture
def ledger_url(postgres_url: str) -> str:
    """The URL of an empty ledger."""
    engine_of(postgres_url).open_to_write(postgres_url).close()
    return postgres_url


@pytest.fixture
def session(ledger_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A session of somebody else."""
    with psycopg.connect(ledger_url, autocommit=True, options="-c search_path=ws_manager") as session:
        yield session


def gateway(session: psycopg.Connection[Any], number: int, left: int) -> None:
    """Write a gateway whose lease has this number of seconds left."""
    session.execute("INSERT INTO gateways (id, pid, url) VALUES (%s, 7, 'ws://g-' || %s)", (number, number))
    session.execute("INSERT INTO leases VALUES (%s, clock_timestamp() + %s * interval '1 s')", (number, left))


def test_a_sound_ledger(ledger_url: str, session: psycopg.Connection[Any]) -> None:
    gateway(session, 0, 57)
    found = examine(ledger_url)
    # The server of the tests writes nothing through to the disk.
    assert found.pop("disk").status == PROBLEM
    assert {finding.status for finding in found.values()} == {OK}
    assert "ws://g-0, process 7, lease renewed 3 s ago" in found["gateways"].detail
    assert "postgresql://owner@127.0.0.1" in found["database"].detail


def test_a_database_without_a_ledger_stays_without(postgres: Server) -> None:
    url = postgres.new(with_schema=False)
    found = examine(url)
    assert (found["schema"].status, found["schema"].remedy) == (PROBLEM, MAKE_LEDGER)
    with psycopg.connect(url) as session:
        assert session.execute("SELECT to_regnamespace('ws_manager')").fetchone() == (None,)
    postgres.drop(url)


@pytest.mark.parametrize("change", ["port", "password", "database"])
def test_what_cannot_be_reached(ledger_url: str, postgres: Server, change: str) -> None:
    old, new = {
        "port": (f":{postgres.port}/", ":1/"),
        "password": (PASSWORD, PASSWORD[::-1]),
        "database": ("/test_", "/none_"),
    }[change]
    url = ledger_url.replace(old, new)
    found = list(engine_of(url).examine(url))
    assert [(finding.check, finding.status) for finding in found] == [("database", PROBLEM)]
    assert found[0].advice
    assert PASSWORD not in repr(found)
    assert PASSWORD[::-1] not in repr(found)


def test_a_database_in_another_encoding(postgres: Server) -> None:
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as session:
        session.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1'")
    (finding,) = engine_of(postgres.url("latin")).examine(postgres.url("latin"))
    assert (finding.status, "UTF8" in finding.detail) == (PROBLEM, True)
    postgres.drop(postgres.url("latin"))


@pytest.mark.parametrize(("version", "status"), [(1, WARNING), (10_000, PROBLEM)])
def test_another_version(
    ledger_url: str, session: psycopg.Connection[Any], version: int, status: str
) -> None:
    session.execute("UPDATE schema_version SET version = %s", (version,))
    found = examine(ledger_url)
    assert found["schema"].status == status
    assert found["schema"].advice
    assert "gateways" not in found
    assert session.execute("SELECT version FROM schema_version").fetchone() == (version,)


def test_a_server_that_is_too_old(ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OLDEST_SERVER", 99)
    assert examine(ledger_url)["server"].status == PROBLEM


def test_commits_that_the_server_does_not_wait_for(ledger_url: str, session: psycopg.Connection[Any]) -> None:
    session.execute("ALTER ROLE owner SET synchronous_commit = off")
    try:
        assert examine(ledger_url)["synchronous_commit"].detail == "off by default; our sessions have on"
    finally:
        session.execute("ALTER ROLE owner RESET synchronous_commit")


class TestTransactions:
    def test_one_that_has_written(
        self, ledger_url: str, session: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(doctor, "LONG_TRANSACTION", 0.0)
        with session.transaction():
            session.execute("INSERT INTO events (kind) VALUES ('opened')")
            finding = examine(ledger_url)["transactions"]
        assert finding.status == WARNING
        assert f"session {session.info.backend_pid} has one open" in finding.detail
        assert "the feed of events waits for it" in finding.detail
        assert examine(ledger_url)["transactions"].status == OK

    def test_one_that_only_reads(
        self, ledger_url: str, session: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with session.transaction():
            session.execute("SELECT 1 FROM events")
            assert "1 of others open" in examine(ledger_url)["transactions"].detail
            monkeypatch.setattr(doctor, "LONG_TRANSACTION", 0.0)
            finding = examine(ledger_url)["transactions"]
        assert (finding.status, "cleaned up" in finding.detail) == (WARNING, True)


@pytest.mark.parametrize(("ahead", "status"), [(0.0, OK), (4.0, OK), (8.0, WARNING), (-8.0, WARNING)])
def test_clocks(ledger_url: str, monkeypatch: pytest.MonkeyPatch, ahead: float, status: str) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    finding = examine(ledger_url)["clock"]
    assert finding.status == status
    assert ("behind" in finding.detail) == (ahead > 5)


def test_rows_of_another_server(ledger_url: str, session: psycopg.Connection[Any]) -> None:
    session.execute("INSERT INTO events (kind, tx) VALUES ('opened', '999999999')")
    finding = examine(ledger_url)["restored"]
    assert finding.status == PROBLEM
    assert finding.detail.startswith("events: ")
    # What it advises helps.
    open_ledger(ledger_url).close()
    assert "restored" not in examine(ledger_url)


class TestGateways:
    def test_none_has_run(self, ledger_url: str) -> None:
        assert examine(ledger_url)["gateways"].remedy == START_GATEWAY

    def test_none_runs(self, ledger_url: str, session: psycopg.Connection[Any]) -> None:
        gateway(session, 0, -5)
        finding = examine(ledger_url)["gateways"]
        assert (finding.status, finding.remedy) == (WARNING, START_GATEWAY)

    def test_one_is_late(self, ledger_url: str, session: psycopg.Connection[Any]) -> None:
        for number, left in enumerate((55, 20, -5, 55, 55)):
            gateway(session, number, left)
        finding = examine(ledger_url)["gateways"]
        assert finding.status == WARNING
        assert finding.detail.startswith("4 run(s): ")
        assert finding.detail.endswith("and 1 more; late: ws://g-1")


def test_a_check_that_fails_does_not_end_the_others(
    ledger_url: str, session: psycopg.Connection[Any]
) -> None:
    session.execute("DROP TABLE gateways")
    found = examine(ledger_url)
    assert found["gateways"].status == WARNING
    assert found["size"].status == OK


class Pooler:
    """A pooler in transaction mode with two sessions, as PgBouncer is one, as far as these tests need it.

    A client gets whichever session is free until its transaction has ended.
    """

    def __init__(self, url: str) -> None:
        self._free = [psycopg.connect(url, autocommit=True) for _ in range(2)]
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError, EOFError):
            stream = client.makefile("rb")
            _exactly(stream, int.from_bytes(_exactly(stream, 4), "big") - 4)
            # Authentication is done, these are the server's settings, and the client may begin.
            client.sendall(
                _message(b"R", bytes(4))
                + _message(b"S", b"client_encoding\0UTF8\0")
                + _message(b"S", b"server_version\0" + b"18.0\0")
                + _message(b"K", bytes(8))
                + _message(b"Z", b"I")
            )
            while True:
                kind, body = _read(stream)
                if kind == b"X":
                    return
                with self._changed:
                    self._changed.wait_for(lambda: self._free, 10)
                    session = self._free.pop()
                try:
                    self._transaction(client, stream, session, _message(kind, body))
                finally:
                    with self._changed:
                        self._free.append(session)
                        self._changed.notify()

    def _transaction(self, client: socket.socket, stream: Any, session: Any, first: bytes) -> None:
        """Pass messages on until the server says that no transaction is open."""
        with socket.socket(fileno=os.dup(session.pgconn.socket)) as server:
            server.setblocking(True)
            answers = server.makefile("rb")
            request = first
            while True:
                server.sendall(request)
                # Of a batch of messages only these two are answered to the end.
                while request[:1] not in (b"Q", b"S"):
                    request = _message(*_read(stream))
                    server.sendall(request)
                while True:
                    kind, body = _read(answers)
                    client.sendall(_message(kind, body))
                    if kind == b"Z":
                        break
                if body == b"I":
                    return
                request = _message(*_read(stream))

    def close(self) -> None:
        self._listener.close()
        for session in self._free:
            session.close()


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def _read(stream: Any) -> tuple[bytes, bytes]:
    kind = _exactly(stream, 1)
    return kind, _exactly(stream, int.from_bytes(_exactly(stream, 4), "big") - 4)


def _exactly(stream: Any, count: int) -> bytes:
    data: bytes = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def test_a_pooler_in_transaction_mode(ledger_url: str, postgres: Server) -> None:
    pooler = Pooler(ledger_url)
    url = ledger_url.replace(f":{postgres.port}/", f":{pooler.port}/") + "?sslmode=disable&gssencmode=disable"
    try:
        with closing(Database(url)) as db:
            assert db.value("SELECT 1") == 1
        finding = examine(url)["pooler"]
    finally:
        pooler.close()
    assert finding.status == PROBLEM
    assert finding.advice


def test_leases_that_ran_out(ledger_url: str, session: psycopg.Connection[Any]) -> None:
    gateway(session, 0, 57)
    gateway(session, 1, -300)
    found = examine(ledger_url)
    assert found["gateways"].status == OK
    assert found["leases"].status == WARNING
    assert "ws://g-1, process 7, 5 minutes ago" in found["leases"].detail
