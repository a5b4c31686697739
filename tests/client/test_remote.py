"""A ledger over HTTP: what is particular about it. That its verbs are those of a ledger, `tests/contract` holds."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from tests.support import gateway_in_a_thread
from ws_manager import InvalidInput, Ledger, NotAuthorised, NotFound, open_ledger
from ws_manager.client.api import ApiClient, base_address
from ws_manager.client.remote import RemoteLedger
from ws_manager.core.batch import Batch
from ws_manager.core.delivery import Delivery
from ws_manager.core.maintenance import Maintenance
from ws_manager.core.webhooks import Webhooks
from ws_manager.repository.findings import MessageFilter
from ws_manager.strict_json import Json
from ws_manager.tokens import mint

KEY = b"the key of this test, not a secret"

HERE_ONLY = {
    Ledger: {
        "import_connection", "check_bars", "count_message", "retry_of", "feed", "sample", "latest_gateway", "check",
        "is_same", "use_memory", "interrupt", "break_off", "in_transaction", "get", "gateway_to_call",
    },
    Delivery: {
        "positions", "after", "pending", "events_after", "settle", "open_socket", "record_gateway", "gateway_seen",
        "sweep", "why_void", "take_hold", "renew_hold", "release_hold", "confirm_up_to",
        "count_pending", "reply",
    },
    Batch: {"in_any_order", "together", "message", "send_once"},
    Webhooks: {"take"},
    Maintenance: {"trim", "checkpoint", "makes_checkpoints", "copy_to", "unseal"},
}  # fmt: skip
"""What only the process that has the file does, or what is built on other verbs."""


@pytest.fixture
def remote(database: Path) -> Iterator[RemoteLedger]:
    """A ledger over HTTP, which asks for tokens."""
    with gateway_in_a_thread(database, KEY) as url:
        token = mint(KEY, "*", scopes=["admin"])
        with RemoteLedger(ApiClient(url, lambda: token)) as ledger:
            yield ledger


@pytest.mark.parametrize("kind", HERE_ONLY, ids=lambda kind: kind.__name__)
def test_no_verb_is_forgotten(remote: RemoteLedger, kind: type) -> None:
    kinds: dict[type, type] = {
        Ledger: RemoteLedger,
        Delivery: type(remote.delivery),
        Batch: type(remote.batch),
        Webhooks: type(remote.webhooks),
        Maintenance: type(remote.maintenance),
    }
    over = kinds[kind]
    verbs = {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}
    theirs = {
        name
        for each in over.__mro__
        if each.__module__.startswith("ws_manager.client")
        for name in vars(each)
    }
    assert verbs - theirs == HERE_ONLY[kind]


def test_what_only_its_machine_can_do_is_refused(remote: RemoteLedger) -> None:
    for call in (
        lambda: remote.count_message("ws-001"),
        lambda: remote.delivery.positions("g"),
        lambda: remote.maintenance.checkpoint(),
        lambda: remote.maintenance.import_lines([]),
    ):
        with pytest.raises(InvalidInput, match="a gateway"):
            call()


@pytest.mark.parametrize(
    "name", [".", "..", "a/b", "%2F", "a b", "ü", "日本", "?", "#", "+", "a;b", "100%", "a{b}"]
)
def test_any_name_is_found_again(remote: RemoteLedger, name: str) -> None:
    assert remote.connect(name, name, {"name": name}).ws_id == name
    assert remote.knows_agent(name)
    sent = remote.send(name, name, name)
    assert sent is not None
    assert (sent.recipient_id, sent.msg_type) == (name, name)
    found = remote.find(name)
    assert found is not None
    assert (found.agent, found.metadata) == (name, {"name": name})
    assert remote.heartbeat(name)
    assert remote.explain(name).kind == "connection"
    assert [each.payload for each in remote.messages(MessageFilter(ws_id=name))] == [name]
    assert remote.disconnect_all([name]) == [name]
    assert remote.bar(name) == (True, [])
    assert remote.unbar(name)


def test_numbers_keep_their_text(remote: RemoteLedger) -> None:
    text = '{"a":1.10,"b":[77950e8,-0.0],"c":12345678901234567890}'
    remote.connect("octavia", "ws-001", Json(text))
    sent = remote.send("ws-001", Json(text))
    assert sent is not None
    assert sent.content == text
    found = remote.find("ws-001")
    assert found is not None
    assert found.metadata_json == text
    with remote.delivery.holding("ws-001") as connection:
        (pending,) = remote.delivery.pending_held(connection, 0, 10)
    assert pending.content == text
    assert remote.explain(sent.msg_id).facts["content"] == text
    assert text in "".join(remote.maintenance.export_lines()).replace('\\"', '"')


def test_more_than_one_page(remote: RemoteLedger, database: Path) -> None:
    with open_ledger(database) as local, local.batch.together():
        for number in range(2345):
            local.connect("octavia", f"ws-{number:04d}")
            local.send(f"ws-{number:04d}", number)
    assert [each.connection.ws_id for each in remote.connections()] == [f"ws-{n:04d}" for n in range(2345)]
    assert len(remote.connections(limit=1500)) == 1500
    assert [each.payload for each in remote.messages(MessageFilter(), 2000)] == list(range(2344, 344, -1))
    sent = remote.broadcast("all")
    assert sorted(sent.recipients) == sorted(remote.addressed(sent.broadcast_id))
    assert len(sent.recipients) == 2345
    following = remote.follow(MessageFilter(since="2000-01-01T00:00:00.000000+00:00"), lambda: None)
    seen = 0
    while seen < 4690:
        seen += len(next(following))
    assert seen == 4690


def _same(token: Optional[str]) -> Optional[str]:
    return token


def test_what_a_token_may_not_do(remote: RemoteLedger) -> None:
    remote.connect("octavia", "ws-001")
    for token, message in (
        (None, "asks for a valid token"),
        (mint(KEY, "*", scopes=["read"]), "the token has no scope send"),
        (mint(b"another key, and not a secret one", "*"), "asks for a valid token"),
    ):
        with (
            RemoteLedger(ApiClient(remote.api.url, functools.partial(_same, token))) as other,
            pytest.raises(NotAuthorised, match=message) as refused,
        ):
            other.send("ws-001", 1)
        assert token is None or token not in str(refused.value)
    with RemoteLedger(ApiClient(remote.api.url, lambda: mint(KEY, "*", scopes=["read"]))) as reader:
        remote.send("ws-001", "secret")
        assert [each.content for each in reader.messages(MessageFilter())] == ["null"]
        with pytest.raises(NotAuthorised):
            reader.stats() and reader.maintenance.prune(0)


def test_errors_are_those_of_a_ledger(remote: RemoteLedger) -> None:
    with pytest.raises(NotFound, match="no connection, message or broadcast nothing") as missing:
        remote.look_up("nothing")
    assert missing.value.remedy == "list_all"
    with pytest.raises(NotFound, match="no message nothing"):
        remote.retry("nothing")
    with pytest.raises(InvalidInput, match="no such order"):
        remote.connections(order="colour")
    with pytest.raises(NotFound):
        remote.connections(after="nothing")


@pytest.mark.parametrize(
    "url", ["", "gateway.example.com", "ftp://x", "http://", "http://x:y", "http://[::1", "http://x:99999"]
)
def test_what_is_not_an_address(url: str) -> None:
    with pytest.raises(InvalidInput, match="not the address of a gateway"):
        base_address(url)


@pytest.mark.parametrize("url", ["http://me:secret@x", "http://x?access_token=secret", "http://x#secret"])
def test_an_address_with_a_secret_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(InvalidInput, match="base address") as refused:
        base_address(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://x:8765/", "http://x:8765"),
        ("wss://x", "https://x"),
        ("ws://[::1]:1/a/b/", "http://[::1]:1/a/b"),
        ("HTTPS://x", "https://x"),
    ],
)
def test_addresses(url: str, base: str) -> None:
    assert base_address(url) == base


def test_batches_say_what_was_wrong_with_a_line(remote: RemoteLedger) -> None:
    remote.connect("octavia", "ws-001")
    batch = remote.batch
    lines = [batch.message(number, "data", "ws-001" if number % 2 else "nobody") for number in range(1200)]
    outcomes = batch.send(lines)
    assert [isinstance(outcome, NotFound) for outcome in outcomes] == [n % 2 == 0 for n in range(1200)]
    contents = [json.loads(message.content) for message in remote.messages(MessageFilter(), 1000)]
    assert contents == list(range(1199, 0, -2))


def test_many_long_names_are_ended(remote: RemoteLedger) -> None:
    names = [f"{number:03d}" + "ü" * 125 for number in range(150)]
    for name in names:
        remote.connect("octavia", name)
    assert remote.disconnect_all(names) == names


def test_what_is_too_long_for_a_request_is_refused(remote: RemoteLedger) -> None:
    with pytest.raises(InvalidInput, match="too long for a request"):
        remote.messages(MessageFilter(text="x" * 9000))
