"""The JavaScript client of the npm package: agents in each Node that is found, and gateways that are killed."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.applications import documented
from tests.acceptance.processes import (
    PATIENCE,
    Program,
    command,
    gateway,
    gateway_with_tokens,
    load,
    running,
)
from tests.documentation import DOCS
from tests.nodes import Node, each_node
from tests.npm.building import ROOT, builder
from ws_manager import get_message_history, open_ledger
from ws_manager.repository.sqlite.database import Database

NAME = "blackroad-websocket-manager"
CLIENT = ROOT / "npm" / "client" / "index.mjs"
CLIENT_FILES = {"index.mjs", "index.cjs", "index.d.mts", "index.d.cts"}
LIMIT = 2500
"""Bytes of the client, minified and compressed."""

PRELUDE = """
import { AgentClient, AgentError } from "blackroad-websocket-manager";
// Node has a WebSocket of its own from version 22 on.
const WebSocket = globalThis.WebSocket ?? (await import("ws")).default;
const { GATEWAY: url, TOKEN: token } = process.env;
const say = (...words) => console.log(JSON.stringify(words));
const onConnected = ({ resumed }) => say("connected", resumed);
const onLost = ({ code }) => say("lost", code);
const options = { url, token, wsId: "ws-001", WebSocket, onConnected, onLost };
// What is typed comes one line after the other.
const lines = (await import("node:readline")).createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const typed = async () => (await lines.next()).value;
"""
# Every connection has lasted for a minute when it is lost, so that the delays do not grow.
LASTING = """
const now = performance.now.bind(performance);
let later = 0;
performance.now = () => now() + later;
class Lasting extends WebSocket {
  constructor(...address) {
    super(...address);
    this.addEventListener("close", () => (later += 60000));
  }
}
options.WebSocket = Lasting;
"""
KILLS = 20
RECEIVE = """
const client = new AgentClient("octavia", options);
try {
  for await (const message of client) {
    say(message.content);
    client.ack(message);
  }
  say("ended");
} catch (error) {
  say("error", error.code, error instanceof AgentError);
}
process.exit();
"""


def npm(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run npm, or what it runs, to its end in a folder."""
    return subprocess.run(
        list(arguments), cwd=folder, capture_output=True, text=True, timeout=PATIENCE * 2, check=False
    )


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packed package without its Python."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    folder = tmp_path_factory.mktemp("packed")
    for name in ("package.json", "README.md"):
        shutil.copy2(ROOT / "npm" / name, folder)
    for name in ("bin", "client"):
        shutil.copytree(ROOT / "npm" / name, folder / name)
    builder().make_common_js(folder / "client")
    made = npm(folder, "npm", "pack", "--ignore-scripts", "--silent")
    assert made.returncode == 0, made.stderr
    return folder / made.stdout.strip()


@pytest.fixture(scope="session")
def scratch(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the package and nothing else."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "package.json").write_text("{}")
    installed = npm(folder, "npm", "install", "--offline", "--no-audit", "--no-fund", str(packed))
    assert installed.returncode == 0, installed.stderr
    return folder


UNREACHABLE = re.compile(
    r"code (ENOTFOUND|EAI_AGAIN|ECONN\w+|ETIMEDOUT|ENETUNREACH|ENOTCACHED|ERR_SOCKET\w+|E[45]\d\d)\b"
)
"""What npm says where it cannot reach its registry."""


def fetch(folder: Path, package: str) -> None:
    """Install a package of npm's registry; skip where it cannot be reached."""
    fetched = npm(folder, "npm", "install", "--no-audit", "--no-fund", "--loglevel=error", package)
    if UNREACHABLE.search(fetched.stderr):
        pytest.skip(f"npm cannot fetch {package}: {' '.join(fetched.stderr.split())}")
    assert fetched.returncode == 0, fetched.stderr


@dataclass(frozen=True)
class Project:
    """A project with the package, and the Node that runs its programs; with the module `ws` if that Node needs it."""

    folder: Path
    node: Node


WS = "ws@8.18.3"


@pytest.fixture(scope="session", params=each_node())
def project(scratch: Path, request: pytest.FixtureRequest) -> Project:
    """The project, for each Node in turn."""
    node: Node = request.param
    if not node.has_web_socket:
        fetch(scratch, WS)
    return Project(scratch, node)


@pytest.fixture
def token(database: Path, db: Database) -> str:
    """A token for octavia, which may send."""
    return made_token(database)


def made_token(database: Path, *options: str) -> str:
    scopes = ("--scope", "connect send broadcast")
    return command(database, "token", "octavia", *scopes, *options).stdout.strip()


@contextmanager
def agent(project: Project, script: str, url: str, token: str = "", **variables: str) -> Iterator[Program]:
    """Run a program for Node in the project."""
    program_file = project.folder / "agent.mjs"
    program_file.write_text(PRELUDE + script)
    environment = {**os.environ, "GATEWAY": url, "TOKEN": token, **variables}
    command_line = (str(project.node.path), str(program_file))
    with running(*command_line, stdin=subprocess.PIPE, environment=environment) as program:
        yield program


def said(program: Program) -> list[Any]:
    """Wait for the next thing that a program says."""
    try:
        found: list[Any] = json.loads(program.line())
    except AssertionError:
        raise AssertionError(program.rest_of_errors()) from None
    return found


def until(program: Program, *words: object) -> list[list[Any]]:
    """Wait until a program says something, and return what it said before."""
    before = []
    while (heard := said(program)) != list(words):
        before.append(heard)
    return before


def type_line(program: Program, line: str = "") -> None:
    """Type a line into a program."""
    assert program.process.stdin is not None
    program.process.stdin.write(f"{line}\n")
    program.process.stdin.flush()


def send(database: Path, content: object, *options: str) -> None:
    """Commit a message to the agent's connection."""
    sent = command(database, "send", "ws-001", json.dumps(content), *options)
    assert sent.returncode == 0, sent.stderr


def same_port(url: str) -> tuple[str, str]:
    """Return the options for a gateway at the same address."""
    return "--port", url.rpartition(":")[2]


class TestReceiving:
    @pytest.mark.timeout(300)
    def test_twenty_kills_under_load_lose_nothing_and_repeat_nothing(
        self, project: Project, database: Path, db: Database, token: str
    ) -> None:
        got: list[int] = []

        def receive(program: Program, event: str = "") -> list[Any]:
            """Take what comes: one message, or everything until an event."""
            while isinstance((words := said(program))[0], int):
                got.append(words[0])
                if not event:
                    break
            else:
                assert words[0] == event
            return words

        script = LASTING + RECEIVE.replace(
            "options)",
            """{ ...options, onConnected: ({ resumed, pending }) => say("connected", resumed, pending) })""",
        )
        with ExitStack() as stack:
            server, url = stack.enter_context(gateway_with_tokens(database))
            octavia = stack.enter_context(agent(project, script, url, token))
            assert said(octavia) == ["connected", False, 0]
            with load(database, "ws-001") as committed:
                for _ in range(KILLS):
                    enough = len(got) + 100
                    while len(got) < enough:
                        receive(octavia)
                    server.end(signal.SIGKILL)
                    receive(octavia, "lost")
                    server, _ = stack.enter_context(gateway_with_tokens(database, *same_port(url)))
                    while (words := said(octavia))[0] == "lost":
                        pass
                    assert words[:2] == ["connected", True] and words[2] > 0
            while len(got) < len(committed):
                receive(octavia)
            assert got == committed
            send(database, "the last", "--wait", "30s")
            assert said(octavia) == ["the last"]
            assert {message["delivered"] for message in get_message_history(db, limit=100_000)} == {1}

    def test_what_is_in_hand_when_the_gateway_is_lost_is_handed_out_once_and_confirmed_on_the_next_socket(
        self, project: Project, database: Path, db: Database, token: str
    ) -> None:
        script = RECEIVE.replace("client.ack(message)", "await typed();\n    client.ack(message)")
        with ExitStack() as stack:
            server, url = stack.enter_context(gateway_with_tokens(database))
            octavia = stack.enter_context(agent(project, script, url, token))
            until(octavia, "connected", False)
            for number in range(3):
                send(database, number)
            until(octavia, 0)
            server.end(signal.SIGKILL)
            until(octavia, "lost", 1006)
            # Without a socket: it is remembered.
            type_line(octavia)
            until(octavia, 1)
            stack.enter_context(gateway_with_tokens(database, *same_port(url)))
            assert {tuple(words) for words in until(octavia, "connected", True)} <= {("lost", 1006)}
            wait_for(db, 2)
            assert [message["delivered"] for message in get_message_history(db)] == [0, 0, 1]
            type_line(octavia)
            assert said(octavia) == [2]
            type_line(octavia)
            wait_for(db, 0)

    def test_an_ack_confirms_what_came_before_and_a_reject_only_its_message(
        self, project: Project, database: Path, db: Database, token: str
    ) -> None:
        script = """
const client = new AgentClient("octavia", options);
const taken = [];
for await (const message of client) {
  if (taken.push(message) === 4) break;
}
client.reject(taken[1], "not for me");
client.ack(taken[2]);
client.ack(taken[0]);
say("done");
await typed();
"""
        with gateway_with_tokens(database) as (_, url), agent(project, script, url, token) as octavia:
            until(octavia, "connected", False)
            for number in range(4):
                send(database, number)
            until(octavia, "done")
            wait_for(db, 1)
            found = db.execute("SELECT delivered, reject_reason FROM messages ORDER BY rowid").fetchall()
            assert [tuple(row) for row in found] == [(1, None), (0, "not for me"), (1, None), (0, None)]

    def test_an_exception_in_the_loop_leaves_its_message_pending_for_the_next_process(
        self, project: Project, database: Path, db: Database, token: str
    ) -> None:
        script = RECEIVE.replace(
            "say(message.content);",
            'say(message.content);\n    if (message.content === 1) throw new Error("theirs");',
        ).replace('"error", error.code', '"error", error.message')
        with gateway_with_tokens(database) as (_, url):
            with agent(project, script, url, token) as octavia:
                assert said(octavia) == ["connected", False]
                for number in range(3):
                    send(database, number)
                assert [said(octavia) for _ in range(3)] == [[0], [1], ["error", "theirs", False]]
                assert octavia.wait() == 0
            wait_for(db, 2)
            with agent(project, RECEIVE, url, token) as octavia:
                assert said(octavia) == ["connected", True]
                assert [said(octavia) for _ in range(2)] == [[1], [2]]
                wait_for(db, 0)

    def test_a_loop_that_rejects_what_it_cannot_handle_goes_on(
        self, project: Project, database: Path, db: Database, token: str
    ) -> None:
        script = RECEIVE.replace(
            "client.ack(message);",
            """try {
      if (message.content === 1) throw new TypeError("theirs");
      client.ack(message);
    } catch (error) {
      client.reject(message, error.name);
    }""",
        )
        with gateway_with_tokens(database) as (_, url), agent(project, script, url, token) as octavia:
            assert said(octavia) == ["connected", False]
            for number in range(3):
                send(database, number)
            assert [said(octavia) for _ in range(3)] == [[0], [1], [2]]
            wait_for(db, 0)
            found = db.execute("SELECT delivered, reject_reason FROM messages ORDER BY rowid").fetchall()
            assert [tuple(row) for row in found] == [(1, None), (0, "TypeError"), (1, None)]

    def test_close_disconnects_and_ends_the_iterator(
        self, project: Project, database: Path, db: Database, token: str
    ) -> None:
        script = RECEIVE.replace("client.ack(message);", "client.ack(message);\n    await client.close();")
        with gateway_with_tokens(database) as (_, url), agent(project, script, url, token) as octavia:
            until(octavia, "connected", False)
            send(database, "only", "--wait", "30s")
            assert [said(octavia), said(octavia)] == [["only"], ["ended"]]
            assert octavia.wait() == 0
            assert command(database, "list", "-o", "id").stdout == ""

    def test_it_takes_the_ws_id_that_the_gateway_makes_and_comes_back_under_it(
        self, project: Project, database: Path, db: Database, token: str
    ) -> None:
        script = """
const client = new AgentClient("octavia", { ...options, wsId: undefined, metadata: { region: "eu west/1 & 2" } });
say("greeted", (await client.connect()).ws_id === client.wsId);
await typed();
"""
        with ExitStack() as stack:
            server, url = stack.enter_context(gateway_with_tokens(database))
            octavia = stack.enter_context(agent(project, script, url, token))
            until(octavia, "greeted", True)
            server.end(signal.SIGKILL)
            stack.enter_context(gateway_with_tokens(database, *same_port(url)))
            until(octavia, "connected", True)
            (connection,) = json.loads(command(database, "list", "--json").stdout)
            assert connection["metadata"] == {"region": "eu west/1 & 2"}


def wait_for(db: Database, pending: int) -> None:
    """Wait until this number of messages are neither confirmed nor set aside."""
    query = "SELECT count(*) FROM messages WHERE delivered = 0 AND rejected_at IS NULL"
    deadline = time.monotonic() + PATIENCE
    while (found := db.execute(query).fetchone()[0]) != pending:
        assert time.monotonic() < deadline, found


class TestSending:
    @pytest.mark.timeout(300)
    def test_what_is_sent_over_twenty_kills_arrives_once(
        self, project: Project, database: Path, db: Database, token: str
    ) -> None:
        script = (
            LASTING
            + """
const client = new AgentClient("octavia", options);
await client.connect();
const send = async (number) => say("sent", number, await client.send("ws-002", number, { msgType: "count" }));
await Promise.all(Array.from({ length: 1050 }, (_, number) => send(number)));
say("done");
await typed();
"""
        )
        assert command(database, "connect", "cipher", "--ws-id", "ws-002").returncode == 0
        sent: dict[int, str] = {}
        with ExitStack() as stack:
            server, url = stack.enter_context(gateway_with_tokens(database))
            octavia = stack.enter_context(agent(project, script, url, token))
            for kill in range(KILLS + 1):
                while len(sent) < 50 * (kill + 1):
                    words = said(octavia)
                    if words[0] == "sent":
                        sent[words[1]] = words[2]
                if kill < KILLS:
                    server.end(signal.SIGKILL)
                    server, _ = stack.enter_context(gateway_with_tokens(database, *same_port(url)))
            until(octavia, "done")
        found = get_message_history(db, "ws-002", limit=2000)
        assert {int(message["content"]): message["msg_id"] for message in found} == sent
        assert len(found) == len(sent) == 50 * (KILLS + 1)
        assert {(message["msg_type"], message["sender_id"]) for message in found} == {("count", "ws-001")}

    def test_what_was_committed_before_its_answer_was_lost_is_not_sent_twice(
        self, project: Project, database: Path, db: Database, token: str
    ) -> None:
        script = """
let sockets = 0;
// The answers to the first of these are lost.
class Deaf extends WebSocket {
  #first = sockets++ === 0;
  set onmessage(react) {
    super.onmessage = (event) => (this.#first && event.data.includes('"result"')) || react(event);
  }
}
const client = new AgentClient("octavia", { ...options, WebSocket: Deaf });
const [sent, { broadcastId, recipients }] = await Promise.all([client.send("ws-002", 1), client.broadcast(2)]);
say("done", sent, broadcastId, recipients);
await typed();
"""
        assert command(database, "connect", "cipher", "--ws-id", "ws-002").returncode == 0
        with ExitStack() as stack:
            server, url = stack.enter_context(gateway_with_tokens(database))
            octavia = stack.enter_context(agent(project, script, url, token))
            wait_for(db, 3)
            server.end(signal.SIGKILL)
            stack.enter_context(gateway_with_tokens(database, *same_port(url)))
            while (words := said(octavia))[0] != "done":
                pass
            found = get_message_history(db)
            assert len(found) == 3
            assert words[1] in {message["msg_id"] for message in found}
            (broadcast,) = json.loads(command(database, "broadcasts", "--json").stdout)
            assert [broadcast["broadcast_id"], 2] == words[2:]

    def test_many_requests_at_once_stay_within_the_rate_of_the_gateway(
        self, project: Project, database: Path, db: Database, token: str
    ) -> None:
        script = """
const client = new AgentClient("octavia", options);
await Promise.all(Array.from({ length: 300 }, (_, number) => client.send("ws-001", number)));
say("done");
await typed();
"""
        with gateway_with_tokens(database) as (_, url), agent(project, script, url, token) as octavia:
            assert until(octavia, "done") == [["connected", False]]

    def test_a_broadcast_says_who_gets_it(
        self, project: Project, database: Path, db: Database, token: str
    ) -> None:
        script = """
const client = new AgentClient("octavia", options);
const all = await client.broadcast({ event: 1 });
const some = await client.broadcast({ event: 2 }, { agent: "cipher", msgType: "news" });
say(all.recipients, some.recipients, all.broadcastId, some.broadcastId);
await typed();
"""
        for number in (2, 3):
            assert command(database, "connect", "cipher", "--ws-id", f"ws-00{number}").returncode == 0
        with gateway_with_tokens(database) as (_, url), agent(project, script, url, token) as octavia:
            until(octavia, "connected", False)
            words = said(octavia)
            assert words[:2] == [3, 2]
            listed = json.loads(command(database, "broadcasts", "--json").stdout)
            assert [broadcast["broadcast_id"] for broadcast in listed] == [words[3], words[2]]
            (news, *_) = get_message_history(db, "ws-003")
            assert (news["msg_type"], news["content"]) == ("news", '{"event":2}')

    def test_what_the_gateway_refuses_fails_with_its_code_and_the_client_goes_on(
        self, project: Project, database: Path, db: Database
    ) -> None:
        script = """
const client = new AgentClient("octavia", options);
const failed = (error) => say(error instanceof AgentError, error.code);
await client.send("ws-404", 1).catch(failed);
await client.broadcast(1).catch(failed);
await client.send("ws-001", undefined).catch(failed);
say("sent", typeof (await client.send("ws-001", 1)));
await typed();
"""
        only = command(database, "token", "octavia", "--scope", "connect send").stdout.strip()
        with gateway_with_tokens(database) as (_, url), agent(project, script, url, only) as octavia:
            until(octavia, "connected", False)
            assert [said(octavia) for _ in range(3)] == [
                [True, "not_found"],
                [True, "not_authorised"],
                [True, "invalid"],
            ]
            assert said(octavia) == ["sent", "string"]


class TestReplying:
    ECHO = RECEIVE.replace(
        "client.ack(message);",
        """if (message.wants_reply) {
      await typed();
      say("answered", typeof (await client.reply(message, { echo: message.content })));
    }""",
    )

    def test_the_answer_reaches_whoever_asks_and_confirms_its_message_alone(
        self, project: Project, database: Path, db: Database, token: str
    ) -> None:
        with gateway_with_tokens(database) as (_, url), agent(project, self.ECHO, url, token) as octavia:
            assert said(octavia) == ["connected", False]
            send(database, "before")
            assert said(octavia) == ["before"]
            type_line(octavia)
            asked = command(database, "ask", "octavia", "hello", "--timeout", "30s", "--json")
            assert asked.returncode == 0, asked.stderr
            assert json.loads(asked.stdout)["answer"] == {"echo": "hello"}
            assert [said(octavia), said(octavia)] == [["hello"], ["answered", "string"]]
            found = db.execute("SELECT delivered FROM messages ORDER BY id").fetchall()
            assert [row[0] for row in found] == [0, 1]

    def test_what_wants_no_answer_is_refused_and_the_client_goes_on(
        self, project: Project, database: Path, db: Database, token: str
    ) -> None:
        script = RECEIVE.replace(
            "client.ack(message);",
            """await client.reply(message, 1).catch(({ code }) => say("refused", code));
    client.ack(message);""",
        )
        with gateway_with_tokens(database) as (_, url), agent(project, script, url, token) as octavia:
            assert said(octavia) == ["connected", False]
            for number in range(2):
                send(database, number)
                assert [said(octavia), said(octavia)] == [[number], ["refused", "invalid"]]
            wait_for(db, 0)

    @pytest.mark.timeout(300)
    def test_answers_over_five_kills_are_given_once(
        self, project: Project, database: Path, db: Database, token: str
    ) -> None:
        script = LASTING + RECEIVE.replace(
            "client.ack(message);",
            """client.reply(message, message.content).then(
      (msg_id) => say("answered", message.content, msg_id),
      ({ message }) => say("failed", message),
    );""",
        )
        with ExitStack() as stack:
            server, url = stack.enter_context(gateway_with_tokens(database))
            octavia = stack.enter_context(agent(project, script, url, token))
            assert said(octavia) == ["connected", False]
            ledger = open_ledger(database)
            asked: dict[str, int] = {}
            answers: dict[int, str] = {}

            def answered(count: int) -> None:
                while len(answers) < count:
                    words = said(octavia)
                    assert words[0] != "failed", words
                    if words[0] == "answered":
                        assert words[1] not in answers
                        answers[words[1]] = words[2]

            for kill in range(6):
                for number in range(40 * kill, 40 * (kill + 1)):
                    message = ledger.ask("ws-001", number)
                    assert message is not None
                    asked[message.msg_id] = number
                answered(40 * kill + 20)
                if kill < 5:
                    server.end(signal.SIGKILL)
                    server, _ = stack.enter_context(gateway_with_tokens(database, *same_port(url)))
            answered(240)
            for msg_id, number in asked.items():
                found = ledger.asked(msg_id)
                assert (found.answer, found.answer_id) == (str(number), answers[number])
            wait_for(db, 0)
            ledger.close()


class TestTokens:
    def test_a_function_is_asked_again_when_its_token_has_expired_and_nothing_is_lost(
        self, project: Project, database: Path, db: Database
    ) -> None:
        script = RECEIVE.replace(
            "options)",
            """{
  ...options,
  token: async () => {
    const made = execFileSync(process.env.PYTHON, JSON.parse(process.env.ARGUMENTS), { encoding: "utf-8" });
    return made.trim();
  },
})""",
        )
        make = ["-m", "ws_manager", "--db", str(database), "token", "octavia", "--ttl", "2s"]
        variables = {"PYTHON": sys.executable, "ARGUMENTS": json.dumps(make)}
        script = 'import { execFileSync } from "node:child_process";\n' + script
        with (
            gateway_with_tokens(database) as (_, url),
            agent(project, script, url, **variables) as octavia,
        ):
            until(octavia, "connected", False)
            got: list[int] = []
            with load(database, "ws-001") as committed:
                for _ in range(2):
                    got += [number for (number,) in until(octavia, "lost", 4001)]
                    assert said(octavia) == ["connected", True]
            while len(got) < len(committed):
                words = said(octavia)
                got += [] if words[0] in ("lost", "connected") else words
            assert got == committed

    def test_text_that_has_expired_ends_it(self, project: Project, database: Path, db: Database) -> None:
        with gateway_with_tokens(database) as (_, url):
            token = made_token(database, "--ttl", "3s")
            with agent(project, RECEIVE, url, token) as octavia:
                assert until(octavia, "error", 4001, True) == [["connected", False]]

    def test_text_that_expires_while_the_gateway_is_away_ends_it_too(
        self, project: Project, database: Path, db: Database
    ) -> None:
        with gateway_with_tokens(database) as (server, url):
            token = made_token(database, "--ttl", "5s")
            with agent(project, RECEIVE, url, token) as octavia:
                assert said(octavia) == ["connected", False]
                server.end(signal.SIGKILL)
                assert {tuple(words) for words in until(octavia, "error", 4001, True)} == {("lost", 1006)}

    def test_one_that_no_header_can_have_is_not_tried_and_not_quoted(
        self, project: Project, database: Path, db: Database
    ) -> None:
        script = RECEIVE.replace(
            '"error", error.code', '"error", error.code, String(error.stack).includes("secret")'
        )
        with gateway_with_tokens(database) as (_, url), agent(project, script, url, "secret two") as octavia:
            assert said(octavia) == ["error", "invalid", False, True]


class TestEnds:
    @pytest.mark.parametrize(
        ("code", "line"),
        [(4003, "bar octavia --yes"), (4010, "disconnect ws-001"), (4009, "")],
        ids=["barred", "disconnected", "replaced"],
    )
    def test_a_final_close_ends_the_iterator_and_requests_with_its_code(
        self, project: Project, database: Path, db: Database, token: str, code: int, line: str
    ) -> None:
        script = RECEIVE.replace(
            "process.exit();", 'client.send("ws-001", 1).catch(({ code }) => say("send", code));'
        )
        with gateway_with_tokens(database) as (_, url), agent(project, script, url, token) as octavia:
            assert said(octavia) == ["connected", False]
            with ExitStack() as stack:
                if line:
                    assert command(database, *line.split()).returncode == 0
                else:
                    stack.enter_context(agent(project, RECEIVE, url, token))
                assert [said(octavia), said(octavia)] == [["error", code, True], ["send", code]]
            # Once nothing can be typed, nothing of the client keeps it running.
            octavia.process.stdin.close()
            assert octavia.wait() == 0

    def test_a_gateway_that_is_not_there_is_an_error_at_first(self, project: Project, token: str) -> None:
        with agent(project, RECEIVE, "http://127.0.0.1:9", token) as octavia:
            assert said(octavia) == ["error", "unavailable", True]

    def test_a_gateway_that_refuses_is_too(self, project: Project, database: Path, db: Database) -> None:
        with gateway_with_tokens(database) as (_, url), agent(project, RECEIVE, url, "x.y.z") as octavia:
            assert said(octavia) == ["error", "unavailable", True]

    def test_it_waits_for_a_gateway_if_told_to(
        self, project: Project, database: Path, db: Database, token: str
    ) -> None:
        script = RECEIVE.replace("options)", "{ ...options, waitForGateway: true })")
        with gateway_with_tokens(database) as (server, url):
            server.end()
        with agent(project, script, url, token) as octavia:
            assert said(octavia) == ["lost", 1006]
            with gateway_with_tokens(database, *same_port(url)):
                until(octavia, "connected", False)
                send(database, "hello", "--wait", "30s")
                assert said(octavia) == ["hello"]

    @pytest.mark.parametrize(
        "url",
        ["", "127.0.0.1:8765", "ftp://127.0.0.1", "http://127.0.0.1/?token=secret", "http://me@127.0.0.1"],
    )
    def test_an_address_that_cannot_be_one_is_refused(self, project: Project, url: str) -> None:
        script = """
try {
  new AgentClient("octavia", options);
} catch (error) {
  say(error.code, error.message.includes("secret"));
}
process.exit();
"""
        with agent(project, script, url) as octavia:
            assert said(octavia) == ["invalid", False]


def test_without_tokens(project: Project, database: Path, db: Database) -> None:
    script = RECEIVE.replace("options)", "{ ...options, token: null })")
    with gateway(database) as (_, url), agent(project, script, f"{url}/ws") as octavia:
        until(octavia, "connected", False)
        send(database, "hello", "--wait", "30s")
        assert said(octavia) == ["hello"]


def test_the_documented_example(project: Project, database: Path, db: Database, token: str) -> None:
    fetch(project.folder, WS)
    page = (DOCS / "agents.md").read_text(encoding="utf-8")
    (example, _) = re.findall(r"^```javascript\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert command(database, "connect", "cipher", "--ws-id", "ws-002").returncode == 0
    with gateway_with_tokens(database) as (_, url):
        for written, meant in (("http://127.0.0.1:8765", url), ('"…"', json.dumps(token))):
            assert example.count(written) == 1
            example = example.replace(written, meant)
        (project.folder / "example.mjs").write_text(example)
        with running(str(project.node.path), str(project.folder / "example.mjs")) as program:
            assert program.line() == "connected as ws-007"
            sent = command(database, "send", "ws-007", '{"report": 1}', "--wait", "30s")
            assert sent.returncode == 0, sent.stderr
            assert program.line() == "data { report: 1 }"
        assert [message["content"] for message in get_message_history(db, "ws-002")] == ['{"hello":1}']


def test_the_documented_worker_does_jobs_sets_aside_what_fails_and_finishes_when_it_is_stopped(
    project: Project, database: Path, db: Database, token: str
) -> None:
    fetch(project.folder, WS)
    worker = project.folder / "worker.mjs"
    worker.write_text(documented("agents.md", "javascript", "worker.mjs"), encoding="utf-8")
    environment = {**os.environ, "BLACKROAD_WS_TOKEN": token}

    def send(job: object) -> None:
        assert command(database, "send", "worker-002", json.dumps(job)).returncode == 0

    assert command(database, "connect", "octavia", "--ws-id", "worker-002").returncode == 0
    with gateway_with_tokens(database) as (_, url):
        with running(str(project.node.path), str(worker), url, environment=environment) as program:
            send({"name": "first", "seconds": 0})
            assert [program.line(), program.line()] == ["begins first", "has done first"]
            send({"seconds": 0})
            send({"name": "third", "seconds": 0.5})
            assert program.line() == "begins third"
            assert program.end(signal.SIGTERM) == 0
            assert program.lines() == ["has done third"]
            assert program.rest_of_errors() == []
        wait_for(db, 0)
        found = db.execute("SELECT delivered, reject_reason FROM messages ORDER BY id").fetchall()
        assert [tuple(row) for row in found] == [(1, None), (0, "TypeError: a job has a name"), (1, None)]
        # One that has nothing to do ends at once.
        with running(str(project.node.path), str(worker), url, environment=environment) as program:
            send_when_active(database, "worker-002", {"name": "fourth", "seconds": 0})
            assert [program.line(), program.line()] == ["begins fourth", "has done fourth"]
            wait_for(db, 0)
            assert program.end(signal.SIGINT) == 0


def send_when_active(database: Path, ws_id: str, content: object) -> None:
    """Commit a message to a connection as soon as it is there."""
    deadline = time.monotonic() + PATIENCE
    while command(database, "send", ws_id, json.dumps(content)).returncode:
        assert time.monotonic() < deadline


class TestPackage:
    @pytest.mark.parametrize(
        ("name", "load"),
        [
            ("esm.mjs", f'import {{ AgentClient, AgentError }} from "{NAME}";'),
            ("cjs.cjs", f'const {{ AgentClient, AgentError }} = require("{NAME}");'),
        ],
    )
    def test_both_ways_to_load_it(self, scratch: Path, name: str, load: str) -> None:
        use = """
try {
  new AgentClient("octavia", { url: "nowhere", WebSocket: class {} });
} catch (error) {
  console.log(error instanceof AgentError, error.code);
}
"""
        (scratch / name).write_text(load + use)
        ended = npm(scratch, "node", name)
        assert (ended.stdout, ended.stderr) == ("true invalid\n", "")

    def test_says_what_to_do_where_there_is_no_web_socket(self, scratch: Path) -> None:
        program = f"""
delete globalThis.WebSocket;
try {{
  new (require("{NAME}").AgentClient)("octavia", {{ url: "http://127.0.0.1:8765" }});
}} catch ({{ code, message }}) {{
  console.log(code, message);
}}"""
        ended = npm(scratch, "node", "-e", program)
        assert ended.stdout == "invalid no WebSocket here: give one as an option, for example the module ws\n"

    def test_has_the_files_of_the_client(self, packed: Path) -> None:
        with tarfile.open(packed) as archive:
            names = {Path(name).name for name in archive.getnames() if name.startswith("package/client/")}
        assert names == CLIENT_FILES

    @pytest.mark.timeout(900)  # the first of them builds it
    def test_the_whole_package_has_them_too(self, package: Path) -> None:
        with tarfile.open(package) as archive:
            for name in CLIENT_FILES:
                file = archive.extractfile(f"package/client/{name}")
                assert file is not None
                assert file.read() == (CLIENT.parent / name).read_bytes()
            assert len([name for name in archive.getnames() if name.startswith("package/client/")]) == 4

    def test_is_small(self, tmp_path: Path) -> None:
        fetch(tmp_path, "esbuild@0.25.9")
        options = ("--bundle", "--minify", "--format=esm", "--target=es2022")
        made = npm(tmp_path, "node_modules/.bin/esbuild", str(CLIENT), *options)
        assert made.returncode == 0, made.stderr
        size = len(gzip.compress(made.stdout.encode()))
        assert size <= LIMIT, f"{size} bytes"

    def test_its_types_are_found_by_every_kind_of_resolution(self, packed: Path, tmp_path: Path) -> None:
        fetch(tmp_path, "@arethetypeswrong/cli@0.18.5")
        checked = npm(tmp_path, "node_modules/.bin/attw", str(packed))
        assert checked.returncode == 0, checked.stdout
        assert "No problems found" in checked.stdout

    def test_publint_finds_nothing(self, packed: Path, tmp_path: Path) -> None:
        fetch(tmp_path, "publint@0.3.12")
        with tarfile.open(packed) as archive:
            for member in archive.getmembers():
                file = archive.extractfile(member)
                assert file is not None
                (tmp_path / member.name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / member.name).write_bytes(file.read())
        checked = npm(tmp_path, "node_modules/.bin/publint", "--strict", "package")
        assert checked.returncode == 0, checked.stdout
        assert "All good!" in checked.stdout, checked.stdout

    def test_its_types(self, scratch: Path) -> None:
        fetch(scratch, "typescript@5.9.2")
        program = f"""
import {{ AgentClient, AgentError, type Message }} from "{NAME}";
interface Order {{ item: string }}
export async function run(WebSocket: new (url: string) => unknown): Promise<void> {{
  const client = new AgentClient<Order>("octavia", {{ url: "ws://x", token: async () => "t", WebSocket }});
  const seq: number = (await client.connect()).seq;
  for await (const message of client) {{
    const whole: Message<Order> = message;
    const item: string = message.content.item;
    client.ack(whole);
    client.reject(message, item);
    const traces: (string | undefined)[] = [message.reply_to, message.traceparent];
    if (message.wants_reply) traces.push(await client.reply(message, {{ traces }}));
  }}
  const id: string = await client.send("ws-002", seq);
  const {{ recipients }}: {{ recipients: number }} = await client.broadcast(id, {{ agent: "cipher" }});
  const code: number | string = new AgentError("invalid", `${{recipients}}`).code;
  const wrong: number = client.wsId;
  await client.close();
  void [code, wrong];
}}
"""
        for suffix in ("mts", "cts"):
            (scratch / f"program.{suffix}").write_text(program)
        options = ("--noEmit", "--strict", "--module", "node16", "--target", "es2022", "--lib", "es2022")
        checked = npm(scratch, "node_modules/.bin/tsc", *options, "program.mts", "program.cts")
        errors = {line.split(":")[0] for line in checked.stdout.splitlines() if not line.startswith(" ")}
        assert errors == {"program.mts(18,9)", "program.cts(18,9)"}, checked.stdout
