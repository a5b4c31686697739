"""What goes in as JSON comes out as the same text, and what goes in can be read, by whichever way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.processes import command, gateway, listener
from tests.stripe_support import SECRET, event, signature
from ws_manager import (
    ConnectionPool,
    InvalidInput,
    add_connection,
    get_message_history,
    handle_stripe_webhook,
    send_message,
)
from ws_manager.repository.sqlite.database import Database
from ws_manager.strict_json import MAX_DEPTH, members

NUMBERS = '{"a":1.10,"b":77950e8,"c":[1E5,-0,100000000000000000000000.0],"d":0.1000}'
DEEPEST = "[" * MAX_DEPTH + "]" * MAX_DEPTH


@pytest.fixture
def sent(database: Path, db: Database, pool: ConnectionPool) -> list[str]:
    """Messages that came in by the command line: alone, from stdin, and in batches."""
    add_connection(pool, "ws-001", "octavia")
    assert command(database, "send", "ws-001", NUMBERS).returncode == 0
    assert command(database, "broadcast", f" {NUMBERS} ").returncode == 0
    for arguments, line in (
        (("send", "ws-001", "-"), NUMBERS),
        (("send", "ws-001", "--batch", "-"), NUMBERS),
        (("broadcast", "--batch", "-"), NUMBERS),
        (("send", "--batch", "-"), f'{{"type":"x", "content" : {NUMBERS} ,"to":"ws-001"}}'),
    ):
        assert command(database, *arguments, stdin=f"{line}\n").returncode == 0
    return [NUMBERS] * 6


def test_numbers_keep_their_text_in_the_ledger(sent: list[str], db: Database) -> None:
    assert [row["content"] for row in get_message_history(db)] == sent


@pytest.mark.parametrize("form", ["ndjson", "csv", "tsv"])
def test_numbers_keep_their_text_in_history(sent: list[str], database: Path, form: str) -> None:
    printed = command(database, "history", "-o", form, "--fields", "content", "--no-headers").stdout
    assert printed.replace('""', '"').count(NUMBERS) == len(sent)


def test_numbers_keep_their_text_in_json_documents(sent: list[str], database: Path, db: Database) -> None:
    msg_id = get_message_history(db, limit=1)[0]["msg_id"]
    assert command(database, "history", "--json").stdout.count(NUMBERS) == len(sent)
    assert command(database, "show", msg_id, "--json").stdout.count(NUMBERS) == 1


def test_numbers_keep_their_text_through_receive(sent: list[str], database: Path) -> None:
    lines = command(database, "receive", "ws-001").stdout.splitlines()
    assert [members(line)["content"] for line in lines] == sent


def test_numbers_keep_their_text_on_the_wire_and_through_listen(sent: list[str], database: Path) -> None:
    with gateway(database), listener(database, "octavia", "--ws-id", "ws-001", "--count", "6") as agent:
        assert [members(line)["content"] for line in agent.lines()] == sent


def test_numbers_keep_their_text_through_export_and_import(
    sent: list[str], database: Path, tmp_path: Path
) -> None:
    file, other = tmp_path / "export.ndjson", tmp_path / "other.db"
    assert command(database, "export", str(file)).returncode == 0
    assert command(other, "import", str(file)).returncode == 0
    assert command(other, "history", "--json").stdout.count(NUMBERS) == len(sent)


def test_numbers_of_metadata_keep_their_text(database: Path) -> None:
    assert command(database, "connect", "octavia", "--ws-id", "ws-001", "--metadata", NUMBERS).returncode == 0
    for arguments in (("list", "--json"), ("list",), ("list", "-o", "ndjson"), ("show", "ws-001", "--json")):
        assert NUMBERS in command(database, *arguments).stdout


def test_numbers_of_metadata_keep_their_text_at_a_handshake(database: Path) -> None:
    metadata = ("--metadata", NUMBERS)
    with gateway(database), listener(database, "octavia", "--ws-id", "ws-001", *metadata):
        assert NUMBERS in command(database, "list", "--json").stdout


def test_the_deepest_is_read_by_every_reader(database: Path, pool: ConnectionPool) -> None:
    add_connection(pool, "ws-001", "octavia")
    assert command(database, "send", "ws-001", DEEPEST).returncode == 0
    with gateway(database), listener(database, "octavia", "--ws-id", "ws-001", "--count", "1") as agent:
        assert json.loads(agent.line())["content"] == json.loads(DEEPEST)
        assert agent.wait() == 0
    assert DEEPEST in command(database, "history", "--json").stdout


@pytest.mark.parametrize(
    "message", [f"[{DEEPEST}]", "[" * 980 + "]" * 980, "4e98765", '{"x":1e400}', "1" * 1001, '{"a":1,"a":2}']
)
def test_what_a_reader_might_not_read_is_refused_at_every_entrance(
    database: Path, db: Database, pool: ConnectionPool, message: str
) -> None:
    add_connection(pool, "ws-001", "octavia")
    for arguments in (
        ("send", "ws-001", message),
        ("broadcast", message),
        ("broadcast", message, "--dry-run"),
    ):
        refused = command(database, *arguments)
        assert refused.returncode == 2
        assert "hint: " in refused.stderr
    refused = command(database, "connect", "octavia", "--metadata", f'{{"a":{message}}}')
    assert refused.returncode == 2
    batches: list[tuple[tuple[str, ...], str]] = [
        (("send", "ws-001", "--batch", "-"), message),
        (("broadcast", "--batch", "-"), message),
        (("send", "--batch", "-"), f'{{"to":"ws-001","content":{message}}}'),
    ]
    for batch, line in batches:
        refused = command(database, *batch, stdin=f"{line}\n")
        assert refused.returncode == 5
        assert json.loads(refused.stdout)["ok"] is False
    assert get_message_history(db) == []


@pytest.mark.parametrize("number", [10**309, 10**1001])
def test_the_library_refuses_it_too(db: Database, pool: ConnectionPool, number: int) -> None:
    add_connection(pool, "ws-001", "octavia")
    with pytest.raises(InvalidInput):
        send_message(pool, db, "ws-001", number)


def test_what_is_beyond_the_limits_and_pending_comes_back_unchanged_and_set_aside(
    database: Path, db: Database, pool: ConnectionPool, tmp_path: Path
) -> None:
    deep = "[" * 5000 + "]" * 5000
    add_connection(pool, "ws-001", "octavia")
    for number in range(3):
        send_message(pool, db, "ws-001", number)
    # As an older version has stored it.
    db.execute("UPDATE messages SET content = ? WHERE id = 2", (deep,))
    db.execute("UPDATE messages SET content = ?, delivered = 1 WHERE id = 3", ("1e400",))
    file, other = tmp_path / "export.ndjson", tmp_path / "other.db"
    assert command(database, "export", str(file)).returncode == 0
    assert command(other, "import", str(file)).returncode == 0
    rows = [json.loads(row) for row in command(other, "export").stdout.splitlines()]
    messages = [row["row"] for row in rows if row.get("table") == "messages"]
    assert [m["content"] for m in messages] == ["0", deep, "1e400"]
    assert [m["reject_reason"] for m in messages] == [None, "beyond the limits", None]
    assert "beyond the limits" in command(other, "show", messages[1]["msg_id"]).stdout
    assert command(other, "receive", "ws-001").stdout.count("\n") == 1


def test_an_agent_that_cannot_take_a_message_rejects_it_and_goes_on(
    database: Path, db: Database, pool: ConnectionPool
) -> None:
    add_connection(pool, "ws-001", "octavia")
    for number in range(3):
        send_message(pool, db, "ws-001", number)
    # Somebody has written it past every entrance.
    db.execute("UPDATE messages SET content = ? WHERE id = 2", ("[" * 980 + "]" * 980,))
    with gateway(database), listener(database, "octavia", "--ws-id", "ws-001", "--count", "2") as agent:
        assert [json.loads(line)["content"] for line in agent.lines()] == [0, 2]
        assert agent.wait() == 0
    delivered = {row["id"]: (row["delivered"], row["reject_reason"]) for row in get_message_history(db)}
    assert (delivered[1], delivered[3]) == ((1, None), (1, None))
    assert delivered[2][0] == 0
    assert "beyond the limits" in delivered[2][1]


def test_numbers_of_a_stripe_event_keep_their_text(
    database: Path, db: Database, pool: ConnectionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", SECRET)
    body = event().replace(b"2000", NUMBERS.encode())
    # Nobody is connected: it waits, and is replayed.
    assert handle_stripe_webhook(body, signature(body), db_conn=db).status == "unrouted"
    add_connection(pool, "ws-001", "billing")
    assert pool.ledger.webhooks.waiting() == ["evt_1"]
    assert command(database, "stripe", "replay", "evt_1").returncode == 0
    assert NUMBERS in command(database, "history", "--json").stdout
