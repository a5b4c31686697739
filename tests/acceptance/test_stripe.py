"""Stripe's events with real processes: a killed gateway, the commands, and the documented way from nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import COMMAND, PATIENCE, command, gateway, listener, running
from tests.stripe_support import SECRET, event, signature
from ws_manager.repository.sqlite.database import Database
from ws_manager.stripe.trigger import SAMPLES

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", SECRET)


def post(url: str, body: bytes) -> int:
    """Post an event as Stripe does, and return the status; 0 where no answer came."""
    request = urllib.request.Request(
        f"{url}/stripe/webhook",
        body,
        {"Stripe-Signature": signature(body), "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def broadcasts(db: Database) -> int:
    return int(db.value("SELECT count(*) FROM broadcasts"))


class TestKilledGateway:
    """Between receiving an event and answering it; then the event comes again."""

    @pytest.mark.sqlite_only("how a thread that waits for its lock is seen")
    @pytest.mark.skipif(sys.platform != "linux", reason="asks /proc whether the gateway waits")
    def test_before_it_is_written(self, database: Path, db: Database) -> None:
        with gateway(database) as (server, url):
            command(database, "connect", "billing", "--ws-id", "ws-1")
            db.execute("BEGIN IMMEDIATE")
            statuses: list[int] = []
            posting = threading.Thread(target=lambda: statuses.append(post(url, event())))
            posting.start()
            # It has the event now, and cannot write it: the connection is open, and nothing comes.
            assert _received(server.process.pid)
            server.end(signal.SIGKILL)
            posting.join(PATIENCE)
            db.execute("ROLLBACK")
            assert (statuses, broadcasts(db)) == ([0], 0)
        with gateway(database) as (_, url):
            assert [post(url, event()), post(url, event())] == [200, 200]
            assert broadcasts(db) == 1

    def test_after_it_is_written(self, database: Path, db: Database) -> None:
        with gateway(database) as (server, url):
            command(database, "connect", "billing", "--ws-id", "ws-1")
            posting = threading.Thread(target=post, args=(url, event()))
            posting.start()
            while not broadcasts(db):
                assert posting.is_alive() or broadcasts(db)
            server.end(signal.SIGKILL)
            posting.join(PATIENCE)
        with gateway(database) as (_, url):
            assert post(url, event()) == 200
            assert broadcasts(db) == 1


def _received(pid: int) -> bool:
    """Wait until a thread of the process sleeps in SQLite's wait for the write lock."""
    for _ in range(100_000):
        for task in Path(f"/proc/{pid}/task").iterdir():
            if "nanosleep" in (task / "wchan").read_text():
                return True
    return False


@pytest.fixture
def server(database: Path) -> Iterator[str]:
    with gateway(database, "--stripe-route", "payment_intent.*=billing") as (_, url):
        yield url


class TestTrigger:
    @pytest.mark.parametrize("event_type", SAMPLES)
    def test_every_documented_type_reaches_an_agent(
        self, database: Path, server: str, event_type: str
    ) -> None:
        with listener(database, "billing", "--ws-id", "ws-1", "--count", "1") as agent:
            sent = command(database, "stripe", "trigger", event_type, "--json")
            assert sent.returncode == 0, sent.stderr
            outcome = json.loads(sent.stdout)
            message = json.loads(agent.line())
            assert message["msg_type"] == outcome["msg_type"]
            assert message["content"]["type"] == event_type
            assert message["content"]["id"] == outcome["event_id"]

    def test_nobody_connected_is_partly_done_and_replayed_later(self, database: Path, server: str) -> None:
        waiting = command(database, "stripe", "trigger", "payment_intent.succeeded", "--json")
        assert waiting.returncode == 5
        assert "stripe replay" in waiting.stderr
        event_id = json.loads(waiting.stdout)["event_id"]
        with listener(database, "billing", "--ws-id", "ws-1", "--count", "1") as agent:
            assert command(database, "stripe", "replay", event_id).returncode == 0
            assert json.loads(agent.line())["content"]["id"] == event_id

    def test_takes_an_address(self, database: Path, server: str) -> None:
        command(database, "connect", "billing", "--ws-id", "ws-1")
        sent = subprocess.run(
            [*COMMAND, "stripe", "trigger", "payment_intent.succeeded", "--url", server],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (sent.returncode, "to 1 connection(s)" in sent.stdout) == (0, True), sent.stderr

    def test_with_another_secret(self, database: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_of_somebody_else")
        refused = command(database, "stripe", "trigger", "invoice.paid")
        assert (refused.returncode, "another STRIPE_WEBHOOK_SECRET" in refused.stderr) == (2, True)

    def test_where_no_gateway_runs(self, database: Path) -> None:
        assert command(database, "stripe", "trigger", "invoice.paid").returncode == 7


def test_replay_watch_sends_as_soon_as_an_agent_connects(database: Path, server: str) -> None:
    command(database, "stripe", "trigger", "payment_intent.succeeded")
    with running(*COMMAND, "--db", str(database), "stripe", "replay", "--watch") as watching:
        watching.error_line("Watching")
        with listener(database, "billing", "--ws-id", "ws-1", "--count", "1") as agent:
            assert json.loads(agent.line())["msg_type"] == "stripe_payment"
        assert "to 1 connection(s)" in watching.line()
        assert watching.end() == 143


class TestServe:
    def test_a_secret_in_quotes_is_named_at_the_start(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", f'"{SECRET}"')
        with running(*COMMAND, "--db", str(database), "serve", "--no-auth", "--port", "0") as server:
            warned = server.error_line("is in quotes")
            assert "remove them" in warned
            assert SECRET not in warned
            server.error_line("Ready: ")

    def test_routes_without_a_secret_are_an_error(
        self, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("STRIPE_WEBHOOK_SECRET")
        ended = command(database, "serve", "--stripe-route", "*=billing")
        assert (ended.returncode, "STRIPE_WEBHOOK_SECRET" in ended.stderr) == (2, True)

    @pytest.mark.parametrize("options", [["--stripe-route", "billing"], ["--stripe-routes", "/nowhere.toml"]])
    def test_route_that_is_none(self, database: Path, options: list[str]) -> None:
        assert command(database, "serve", *options).returncode == 2

    def test_routes_from_a_file(self, database: Path, tmp_path: Path) -> None:
        (tmp_path / "routes.toml").write_text('[[route]]\nevent = "invoice.*"\nagent = "billing"\n')
        with gateway(
            database, "--stripe-routes", str(tmp_path / "routes.toml"), "--stripe-accept-unrouted"
        ) as (_, url):
            command(database, "connect", "octavia", "--ws-id", "ws-1")
            assert post(url, event("invoice.paid")) == 200
            listed = command(database, "stripe", "events", "-o", "json")
            assert [(each["status"], each["agent"]) for each in json.loads(listed.stdout)] == [
                ("unrouted", "billing")
            ]

    def test_without_the_package_it_runs_and_every_event_is_503(self, database: Path, tmp_path: Path) -> None:
        """As where only the secret is there: no event is lost, for it comes again."""
        (tmp_path / "stripe.py").write_text("raise ImportError('not here')\n")
        code = (
            f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from ws_manager.__main__ import main; main()"
        )
        with running(
            sys.executable, "-c", code, "--db", str(database), "serve", "--no-auth", "--port", "0"
        ) as server:
            warned = server.error_line("-m pip install")
            assert "is not installed" in warned
            assert post(json.loads(server.error_line("Ready: "))["url"], event()) == 503
