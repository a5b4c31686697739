"""Copies of a whole ledger, from each engine to each: what they take over, how they go on, and the seal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional, Union

import pytest

from tests.postgres import Server
from tests.support import LIMIT, db_of
from ws_manager import Conflict, InvalidInput, Ledger, WsManagerError, open_ledger
from ws_manager.core.copying import Copied, Copier, unseal
from ws_manager.core.webhooks import IncomingEvent
from ws_manager.errors import LedgerError, LedgerSealed
from ws_manager.models import Gateway, Receipt, Rejection, utc_now
from ws_manager.repository.copied import COPIED, UNFINISHED, Seal
from ws_manager.repository.findings import MessageFilter
from ws_manager.repository.sqlite.schema import VERSIONS
from ws_manager.repository.store import Store

Place = Union[Path, str]

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STRANGE = {"text": "wést \u0000 \u202e 😀 \\ \t\n", "number": 1.50, "none": None}


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("there", marks=pytest.mark.long),
        pytest.param("back", marks=pytest.mark.long),
    ]
)
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Place, Place]:
    """Where the source and the target are: two files, a file and PostgreSQL, and the way back."""
    if request.param == "sqlite":
        return tmp_path / "source.db", tmp_path / "target.db"
    file, url = tmp_path / "ledger.db", str(request.getfixturevalue("postgres_url"))
    return (file, url) if request.param == "there" else (url, file)


@pytest.fixture
def source(places: tuple[Place, Place]) -> Iterator[Ledger]:
    with open_ledger(places[0]) as ledger:
        yield ledger


@pytest.fixture
def target(places: tuple[Place, Place]) -> Iterator[Ledger]:
    with open_ledger(places[1]) as ledger:
        yield ledger


def copy(source: Ledger, target: Ledger, *, seal: bool = False, rows: int = 7) -> Copied:
    """Copy in small pieces, so that every table with a few rows has several."""
    return Copier(source._store, target._store, rows=rows, characters=2000).run(seal=seal)


def fill(ledger: Ledger) -> None:
    """Write something of every kind into every table."""
    store, now = ledger._store, utc_now()
    for number in range(20):
        ledger.connect("octavia", f"ws-{number:03}", {"region": "wést", "half": 1.5, "nul": "\u0000"})
    ledger.connect("cipher", "ws-gone")
    for number in range(20):
        ledger.heartbeat(f"ws-{number:03}", None if number % 2 else number)
        ledger.send(f"ws-{number:03}", STRANGE, "täsk", sender_id="ws-001" if number % 3 else None)
    ledger.send("ws-000", "x" * 3000)
    for number in range(3):
        ledger.broadcast({"event": number}, sender_id="ws-001", traceparent=TRACE)
    first = ledger.delivery.pending("ws-000", 0, 100)
    ledger.delivery.settle([Receipt("ws-000", 1, [message.seq for message in first[:3]], now)])
    ledger.delivery.settle([Receipt("ws-001", 1, [ledger.delivery.pending("ws-001", 0, 1)[0].seq])])
    ledger.delivery.settle([Rejection("ws-002", 1, ledger.delivery.pending("ws-002", 0, 1)[0].seq, "nö\n'")])
    ledger.disconnect("ws-gone", "over there, it's")
    for event_id in ("evt_2", "evt_1"):
        ledger.webhooks.take(IncomingEvent(event_id, "invoice.paid", "{}", "1", "nobody", "stripe_invoice"))
    for gateway_id in ("g-2", "g-1"):
        ledger.delivery.record_gateway(Gateway(gateway_id, 1, "http://127.0.0.1:1", now, now)).release()
    ledger.bar("mallory")
    ledger.revoke("a" * 32)
    asked = ledger.delivery.pending("ws-003", 0, 10)
    with store.atomic():
        store.keys.insert("*", "send", [(f"key-{number}", "f", "r") for number in range(9)], now)
        store.attempts.put_worker("ws-003", ("worker", 5))
        for message in asked:
            store.attempts.put("ws-003", message.seq, 2, running=True)
            store.asks.insert(message.seq, message.msg_id, "ws-003", "ws-001", "*", now)
        store.asks.answer(asked[0].seq, "answer-1", '{"a":"é"}', now)
        store.holds.put("ws-004", "somebody", now)


def rows_of(ledger: Ledger) -> dict[str, list[Any]]:
    return {table.name: ledger._store.copying.page(table, None, 10**6, 10**9) for table in COPIED}


def exported(ledger: Ledger) -> list[dict[str, Any]]:
    """The rows of an export, which each engine reads in a way of its own."""
    entries = [json.loads(line) for line in ledger.maintenance.export_lines()]
    return [entry for entry in entries if "row" in entry and entry["table"] != "sqlite_sequence"]


class TestRows:
    def test_everything_comes_over(self, source: Ledger, target: Ledger) -> None:
        fill(source)
        copied = copy(source, target, seal=True)
        assert copied.sealed
        assert rows_of(target) == rows_of(source)
        assert exported(target) == exported(source)
        assert copied.rows == {name: len(rows) for name, rows in rows_of(source).items()}
        assert all(copied.rows.values()), "the test has rows of every kind"
        assert (copied.written, copied.deleted) == (sum(copied.rows.values()), 0)
        assert target.stats() == source.stats()
        latest = target.latest_gateway()
        assert latest is not None
        assert latest.id == "g-1"
        assert target._store.holds.find("ws-004") is None
        assert [each.broadcast_id for each in target.broadcasts(10)] == [
            each.broadcast_id for each in source.broadcasts(10)
        ]

    def test_there_and_back_again(self, source: Ledger, target: Ledger, tmp_path: Path) -> None:
        fill(source)
        before = rows_of(source)
        copy(source, target, seal=True)
        with open_ledger(tmp_path / "third.db") as third:
            copy(target, third, seal=True)
            assert rows_of(third) == before

    def test_a_second_copy_writes_only_what_has_changed(self, source: Ledger, target: Ledger) -> None:
        fill(source)
        copy(source, target)
        assert copy(source, target).written == 0
        sent = source.send("ws-007", "new")
        source.disconnect("ws-008")
        assert sent is not None
        copied = copy(source, target)
        # The message, its recipient's counter, the connection that has ended and its event.
        assert (copied.written, copied.deleted) == (4, 0)
        assert rows_of(target) == rows_of(source)

    def test_what_the_source_has_deleted_is_deleted(self, source: Ledger, target: Ledger) -> None:
        fill(source)
        for number in range(20):
            ws_id = f"ws-{number:03}"
            pending = source.delivery.pending(ws_id, 0, 100)
            source.delivery.settle([Receipt(ws_id, 1, [message.seq for message in pending])])
        copy(source, target)
        pruned = source.maintenance.prune(0)
        assert pruned.messages > 14
        # The same ws_id comes back with another id.
        source.disconnect("ws-010")
        source.maintenance.prune(0)
        source.connect("octavia", "ws-010")
        copied = copy(source, target, seal=True)
        assert copied.deleted > 14
        assert rows_of(target) == rows_of(source)
        assert target.stats() == source.stats()

    def test_rows_that_have_got_lower_numbers(self, source: Ledger, target: Ledger) -> None:
        def record(*numbers: int) -> None:
            for number in numbers:
                gateway = Gateway(f"g-{number}", 1, "http://127.0.0.1:1", utc_now(), utc_now())
                source.delivery.record_gateway(gateway).release()

        record(*range(10))
        copy(source, target, rows=2)
        db: Any = source._store.db  # type: ignore[attr-defined]
        db.execute("DELETE FROM gateways WHERE id < 'g-4'")
        if "postgresql" not in source.location:
            # A VACUUM may do that.
            db.execute("UPDATE gateways SET rowid = rowid - 4")
        copy(source, target, rows=2, seal=True)
        assert rows_of(target) == rows_of(source)

    def test_numbers_are_not_given_again(self, source: Ledger, target: Ledger) -> None:
        source.connect("octavia", "ws-001")
        source.connect("octavia", "ws-over")
        for _ in range(9):
            sent = source.send("ws-001", 1)
        assert sent is not None
        seqs = [message.seq for message in source.delivery.pending("ws-001", 0, 100)]
        source.delivery.settle([Receipt("ws-001", 1, seqs)])
        source.disconnect("ws-over")
        source.maintenance.prune(0)
        ever = source.stats()["total_ever_connected"]
        copy(source, target, seal=True)
        assert target.messages(MessageFilter(), 10) == []
        assert target.stats()["total_ever_connected"] == ever
        new = target.send("ws-001", 2)
        assert new is not None
        assert new.db_id is not None
        assert new.db_id > max(seqs)
        again = target.connect("octavia", "ws-new")
        assert again.db_id is not None
        assert again.db_id > 2
        target.broadcast(3)
        assert len(target.broadcasts(10)) == 1

    def test_order_goes_on(self, source: Ledger, target: Ledger) -> None:
        source.connect("octavia", "ws-001")
        for number in range(5):
            source.send("ws-001", number)
        copy(source, target, seal=True)
        for number in range(5, 8):
            target.send("ws-001", number)
        assert [message.content for message in target.delivery.pending("ws-001", 0, 100)] == list("01234567")

    def test_a_cursor_of_the_source_begins_with_a_gap(self, source: Ledger, target: Ledger) -> None:
        fill(source)
        cursor = source._store.feed.end()
        copy(source, target, seal=True)
        if isinstance(source._store, type(target._store)) and "postgresql" not in source.location:
            pytest.skip("between files, cursors stay what they were")
        assert target.feed.after(cursor, 10).gap

    def test_every_column_is_copied_or_left_out_on_purpose(self) -> None:
        left_out = {"holds": None, "idempotency_keys": {"id"}}
        written_otherwise = {"gateways": {"number"}, "broadcasts": {"number"}, "webhook_events": {"number"}}
        columns: dict[str, set[str]] = {}
        for tables in VERSIONS.values():
            for name, added in tables.items():
                columns.setdefault(name, set()).update(added)
        copied = {table.name: set(table.columns) for table in COPIED}
        assert columns.keys() - copied.keys() == {"holds"}
        for name, found in copied.items():
            assert found - written_otherwise.get(name, set()) == columns[name] - (left_out.get(name) or set())


class TestTarget:
    def test_it_must_be_empty(self, source: Ledger, target: Ledger) -> None:
        target.connect("octavia", "ws-001")
        with pytest.raises(Conflict, match="is not empty"):
            copy(source, target)
        assert target.send("ws-001", 1)

    def test_it_takes_nothing_else_until_it_is_finished(self, source: Ledger, target: Ledger) -> None:
        fill(source)
        copy(source, target)
        for write in (lambda: target.send("ws-001", 1), lambda: target.connect("octavia", "ws-new")):
            with pytest.raises(LedgerSealed, match="is an unfinished copy of"):
                write()
        assert target.find("ws-001") is not None
        with pytest.raises(LedgerSealed):
            unseal(target._store)
        copy(source, target, seal=True)
        assert target.send("ws-001", 1)

    def test_it_goes_on_with_its_own_source_alone(
        self, source: Ledger, target: Ledger, tmp_path: Path
    ) -> None:
        fill(source)
        copy(source, target)
        with open_ledger(tmp_path / "another.db") as another:
            with pytest.raises(LedgerSealed, match="is an unfinished copy of"):
                copy(another, target)
            # Nor is an unfinished copy a source.
            with pytest.raises(LedgerSealed, match="is an unfinished copy of"):
                copy(target, another)

    def test_one_process_at_a_time(self, source: Ledger, target: Ledger) -> None:
        hold = target._store.hold_copying()
        assert hold is not None
        with pytest.raises(Conflict, match="another process copies"):
            copy(source, target)
        hold.release()
        copy(source, target)

    def test_not_to_itself(self, source: Ledger, places: tuple[Place, Place]) -> None:
        with open_ledger(places[0]) as same, pytest.raises(InvalidInput, match="to itself"):
            copy(source, same)

    def test_a_finished_copy_is_not_begun_again(self, source: Ledger, target: Ledger) -> None:
        fill(source)
        copy(source, target, seal=True)
        target.send("ws-001", "its own")
        with pytest.raises(Conflict, match="already"):
            copy(source, target, seal=True)
        assert target.messages(MessageFilter(), 1)[0].content == '"its own"'

    def test_a_target_that_spoils_rows_is_found(self, source: Ledger, target: Ledger) -> None:
        fill(source)
        spoil(target._store)
        with pytest.raises(WsManagerError, match=r"differs from .* in messages$") as caught:
            copy(source, target, seal=True)
        assert caught.value.hint is None
        for ledger in (source, target):
            with pytest.raises(LedgerSealed):
                ledger.send("ws-001", 1)
        # It can be put right, and tried again.
        spoil(target._store, no_more=True)
        assert copy(source, target).sealed
        assert rows_of(target) == rows_of(source)


def spoil(store: Store, *, no_more: bool = False) -> None:
    """Let the target change a content whenever it is written: what a defect, or another program, might do."""
    db: Any = store.db  # type: ignore[attr-defined]
    if "postgresql" in store.location:
        if no_more:
            db.execute("DROP FUNCTION ws_manager.spoil() CASCADE")
            return
        db.execute(
            "CREATE FUNCTION ws_manager.spoil() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN NEW.content = '1'; RETURN NEW; END $$"
        )
        db.execute(
            "CREATE TRIGGER spoil BEFORE INSERT ON messages FOR EACH ROW WHEN (NEW.id = 3)"
            " EXECUTE FUNCTION ws_manager.spoil()"
        )
    elif no_more:
        db.execute("DROP TRIGGER spoil")
    else:
        db.execute(
            "CREATE TRIGGER spoil AFTER INSERT ON messages WHEN NEW.id = 3"
            " BEGIN UPDATE messages SET content = '1' WHERE id = 3; END"
        )


class TestSeal:
    def test_who_has_it_open_is_refused(
        self, source: Ledger, target: Ledger, places: tuple[Place, Place]
    ) -> None:
        fill(source)
        with open_ledger(places[0]) as open_before:
            pending = open_before.delivery.pending("ws-005", 0, 1)
            copy(source, target, seal=True)
            writes = (
                lambda: open_before.send("ws-001", 1),
                lambda: open_before.broadcast(1),
                lambda: open_before.connect("octavia", "ws-new"),
                lambda: open_before.connect("octavia", "ws-001"),
                lambda: open_before.disconnect("ws-001"),
                lambda: open_before.heartbeat("ws-001"),
                lambda: open_before.delivery.settle([Receipt("ws-005", 1, [pending[0].seq])]),
                lambda: open_before.bar("octavia"),
                lambda: open_before.delivery.record_gateway(Gateway("g-3", 1, "", utc_now(), utc_now())),
                lambda: open_before.maintenance.prune(0),
            )
            before = rows_of(source)
            for write in writes:
                with pytest.raises(LedgerSealed) as caught:
                    write()
                assert caught.value.message == (
                    f"{source.location} was moved to {target.location}, and takes nothing more"
                )
                assert "correct-horse" not in caught.value.message
                assert target.location not in caught.value.public_message
            assert rows_of(source) == before
            # Readers go on.
            assert open_before.find("ws-001") is not None
            assert open_before.messages(MessageFilter(), 1)

    def test_every_table_refuses_every_statement(self, source: Ledger, target: Ledger) -> None:
        fill(source)
        copy(source, target, seal=True)
        db: Any = source._store.db  # type: ignore[attr-defined]
        for table, column in (*((each.name, each.others[0]) for each in COPIED), ("holds", "until")):
            column = "ts" if column == "ranges" else column
            for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"):
                with pytest.raises(LedgerSealed), source._store.atomic():
                    db.execute(statement)

    def test_one_that_is_opened_later_is_refused_too(
        self, source: Ledger, target: Ledger, places: tuple[Place, Place]
    ) -> None:
        fill(source)
        copy(source, target, seal=True)
        with open_ledger(places[0]) as later, pytest.raises(LedgerSealed):
            later.send("ws-001", 1)

    def test_it_is_taken_off(self, source: Ledger, target: Ledger) -> None:
        fill(source)
        assert not source.maintenance.unseal()
        copy(source, target, seal=True)
        assert source.maintenance.unseal()
        assert source.send("ws-001", 1)
        assert not source.maintenance.unseal()

    def test_a_source_that_was_moved_elsewhere_is_refused(
        self, source: Ledger, target: Ledger, tmp_path: Path
    ) -> None:
        copy(source, target, seal=True)
        with open_ledger(tmp_path / "third.db") as third, pytest.raises(LedgerSealed, match="was moved to"):
            copy(source, third, seal=True)

    def test_a_copy_that_ended_behind_the_seal_is_finished_by_the_next(
        self, source: Ledger, target: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill(source)

        def fail(_self: object) -> None:
            raise LedgerError("the connection broke")

        with monkeypatch.context() as patched:
            patched.setattr(Copier, "_finish", fail)
            with pytest.raises(LedgerError, match="broke"):
                copy(source, target, seal=True)
        with pytest.raises(LedgerSealed):
            source.send("ws-001", 1)
        assert copy(source, target).sealed
        assert target.send("ws-001", 1)

    def test_nothing_acknowledged_is_missing(
        self, source: Ledger, target: Ledger, places: tuple[Place, Place]
    ) -> None:
        """Somebody sends and confirms all the time, until the seal refuses it."""
        fill(source)
        sent: list[str] = []
        confirmed: list[str] = []
        ended: list[WsManagerError] = []
        enough = threading.Event()

        def use() -> None:
            with open_ledger(places[0]) as ledger:
                ledger.connect("worker", "ws-busy")
                try:
                    while True:
                        message = ledger.send("ws-busy", len(sent))
                        assert message is not None
                        sent.append(message.msg_id)
                        if len(sent) % 3 == 0:
                            assert message.db_id is not None
                            ledger.delivery.settle([Receipt("ws-busy", 1, [message.db_id])])
                            confirmed.append(message.msg_id)
                        if len(sent) == 10:
                            enough.set()
                except LedgerSealed as error:
                    ended.append(error)

        user = threading.Thread(target=use)
        user.start()
        assert enough.wait(LIMIT)
        copy(source, target)
        began = len(sent)
        copied = copy(source, target, seal=True, rows=50)
        user.join(LIMIT)
        assert ended
        assert not user.is_alive()
        assert copied.sealed
        assert len(sent) >= began >= 10
        found = {message.msg_id: message for message in target.messages(MessageFilter(), 100_000)}
        assert [msg_id for msg_id in sent if msg_id not in found] == []
        assert [msg_id for msg_id in confirmed if not found[msg_id].delivered] == []
        busy = target.messages(MessageFilter(ws_id="ws-busy"), 100_000)
        assert [message.msg_id for message in reversed(busy)] == sent
        assert rows_of(target) == rows_of(source)


@pytest.mark.long
class TestPostgres:
    @pytest.fixture
    def source(self, postgres_url: str) -> Iterator[Ledger]:
        with open_ledger(postgres_url) as ledger:
            ledger.connect("octavia", "ws-001")
            yield ledger

    @pytest.fixture
    def target(self, tmp_path: Path) -> Iterator[Ledger]:
        with open_ledger(tmp_path / "target.db") as ledger:
            yield ledger

    def test_from_one_database_to_another(self, source: Ledger, postgres: Server) -> None:
        fill(source)
        url = postgres.new(with_schema=False)
        with open_ledger(url) as other:
            assert copy(source, other, seal=True).sealed
            assert rows_of(other) == rows_of(source)
            assert other.stats() == source.stats()
        postgres.drop(url)

    def test_a_transaction_under_way_is_in_the_copy_or_fails(
        self, source: Ledger, target: Ledger, postgres_url: str
    ) -> None:
        copy(source, target)
        sealed: list[Optional[Copied]] = []

        def finish() -> None:
            with open_ledger(postgres_url) as ledger, open_ledger(target.location) as other:
                sealed.append(copy(ledger, other, seal=True))

        with open_ledger(postgres_url) as idle:
            sealing = threading.Thread(target=finish)
            with source._store.atomic():
                sent = source.send("ws-001", "under way")
                sealing.start()
                # It waits for this transaction, but only ever for a moment: nobody else waits for long behind it.
                written = idle.connect("octavia", "ws-meanwhile")
                assert not sealed
            sealing.join(LIMIT)
            assert sealed
            with pytest.raises(LedgerSealed):
                idle.send("ws-001", "later")
        assert sent is not None
        assert [message.msg_id for message in target.messages(MessageFilter(), 10)] == [sent.msg_id]
        assert target.find(written.ws_id) is not None

    def test_a_transaction_that_has_not_written_yet_fails(
        self, source: Ledger, target: Ledger, postgres_url: str
    ) -> None:
        with open_ledger(postgres_url) as other, pytest.raises(LedgerSealed), other._store.atomic():
            assert other.find("nobody") is None
            copy(source, target, seal=True)
            other.send("ws-001", 1)


class TestRefusedRows:
    @pytest.fixture
    def source(self, database: Path) -> Iterator[Ledger]:
        with open_ledger(database) as ledger:
            fill(ledger)
            yield ledger

    @pytest.mark.long
    def test_a_name_with_nul_is_named(self, source: Ledger, postgres_url: str) -> None:
        db_of(source).execute("UPDATE connections SET agent = 'a' || char(0) || 'b' WHERE ws_id = 'ws-004'")
        seq = source.find("ws-004").db_id
        with open_ledger(postgres_url) as target:
            with pytest.raises(
                LedgerError, match=rf"\(connections, id {seq}\): its agent has a NUL"
            ) as caught:
                copy(source, target)
            assert "correct-horse" not in str(caught.value)
            db_of(source).execute("UPDATE connections SET agent = 'ab' WHERE ws_id = 'ws-004'")
            assert copy(source, target, seal=True).sealed

    @pytest.mark.long
    def test_a_number_that_is_too_large_is_named(self, source: Ledger, postgres_url: str) -> None:
        db_of(source).execute("UPDATE heartbeat_log SET latency_ms = 99999999999 WHERE id = 9")
        named = pytest.raises(LedgerError, match=r"\(heartbeat_log, id 9\): its latency_ms is not")
        with open_ledger(postgres_url) as target, named:
            copy(source, target)

    @pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
    def test_nul_in_a_reason_and_a_fraction_of_a_millisecond_come_over(
        self, source: Ledger, kind: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        db = db_of(source)
        db.execute("UPDATE messages SET reject_reason = 'a' || char(0) || 'b' WHERE rejected_at IS NOT NULL")
        db.execute("UPDATE heartbeat_log SET latency_ms = 12.6 WHERE id = 1")
        place = tmp_path / "target.db" if kind == "sqlite" else request.getfixturevalue("postgres_url")
        with open_ledger(place) as target:
            assert copy(source, target, seal=True).sealed
            assert [message.reject_reason for message in target.messages(MessageFilter(set_aside=True))] == [
                "a\ufffdb"
            ]
            assert rows_of(target)["heartbeat_log"][0][-1] == 13


CODE = """
import sys
from ws_manager import open_ledger
from ws_manager.core.copying import Copier
def say(table, rows):
    print(table, rows, flush=True)
    sys.stdin.readline()
with open_ledger(sys.argv[1], create=False) as source, open_ledger(sys.argv[2]) as target:
    Copier(source._store, target._store, say, rows=20).run(seal=True)
"""


def test_one_that_was_killed_goes_on_where_it_stopped(
    source: Ledger, target: Ledger, places: tuple[Place, Place]
) -> None:
    fill(source)
    child = subprocess.Popen(
        [sys.executable, "-c", CODE, *map(str, places)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    while not child.stdout.readline().startswith("messages 60"):
        child.stdin.write("\n")
        child.stdin.flush()
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert target._store.copying.seal() == Seal(UNFINISHED, source.location)
    present = sum(len(rows) for rows in rows_of(target).values())
    assert present > 60
    copied = copy(source, target, seal=True)
    assert copied.written == sum(copied.rows.values()) - present
    assert rows_of(target) == rows_of(source)
