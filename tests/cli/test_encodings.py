"""Whatever a command reads as text: UTF-8 with or without a byte order mark, or what PowerShell 5 writes with `>`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ws_manager.client.credentials import token_file
from ws_manager.core.functions import add_connection
from ws_manager.core.pool import ConnectionPool
from ws_manager.errors import InvalidInput
from ws_manager.repository.sqlite.database import Database
from ws_manager.settings import given_token
from ws_manager.stripe.events import load_routes
from ws_manager.tokens import key_path, mint, signing_key

ENCODINGS = {"plain": "utf-8", "mark": "utf-8-sig", "UTF-16": "utf-16"}

encodings = pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)


def contents(cli) -> list[object]:
    return [row["content"] for row in reversed(json.loads(cli("history", "--json").stdout))]


@pytest.fixture
def connected(db: Database, pool: ConnectionPool) -> None:
    add_connection(pool, "ws-001", "octavia")


@encodings
@pytest.mark.usefixtures("connected")
class TestMessages:
    def test_stdin(self, cli, encoding: str) -> None:
        assert cli("send", "ws-001", "-", stdin='{"größe":1}\r\n'.encode(encoding)).exit_code == 0
        assert contents(cli) == [{"größe": 1}]

    def test_batch_from_stdin(self, process, cli, encoding: str) -> None:
        lines = "".join(f'{{"größe":{number}}}\r\n' for number in range(1200))
        ended = process("send", "ws-001", "--batch", "-", stdin=lines.encode(encoding))
        assert ended.returncode == 0, ended.stderr
        assert len(ended.stdout.splitlines()) == 1200
        last = json.loads(cli("history", "--json", "--limit", "1").stdout)
        assert last[0]["content"] == {"größe": 1199}

    def test_batch_from_a_file(self, cli, tmp_path: Path, encoding: str) -> None:
        (tmp_path / "messages").write_bytes("[1]\r\nno JSON\r\n[3]".encode(encoding))
        result = cli("broadcast", "--batch", str(tmp_path / "messages"))
        assert [json.loads(line)["ok"] for line in result.stdout.splitlines()] == [True, False, True]
        assert contents(cli) == [[1], [3]]

    def test_import(self, cli, tmp_path: Path, encoding: str) -> None:
        cli("send", "ws-001", '{"größe":1}')
        exported = cli("export").stdout
        (tmp_path / "export").write_bytes(exported.encode(encoding))
        other = str(tmp_path / "other.db")
        assert cli("--db", other, "import", str(tmp_path / "export")).exit_code == 0
        assert json.loads(cli("--db", other, "history", "--json").stdout)[0]["content"] == {"größe": 1}


@pytest.mark.usefixtures("connected")
class TestArguments:
    def test_message_that_a_shell_has_read_with_its_mark(self, cli) -> None:
        cli("send", "ws-001", '\ufeff{"a":1}')
        assert contents(cli) == [{"a": 1}]

    def test_metadata(self, cli) -> None:
        result = cli("connect", "cipher", "--ws-id", "ws-002", "--metadata", '\ufeff{"a":1}', "--json")
        assert json.loads(result.stdout)["metadata"] == {"a": 1}

    def test_token_of_the_environment(self) -> None:
        assert given_token({"BLACKROAD_WS_TOKEN": "\ufeffabc"}) == "abc"


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize(
    ("stdin", "told"),
    [
        (b"abc\xe9\n", "the message on stdin is not UTF-8 (byte 3)"),
        ("abc".encode("utf-16-le"), "looks like UTF-16 without a byte order mark"),
        (b"1" * (4 * 1024 * 1024 + 1), "more than 4194304 bytes"),
    ],
    ids=["Latin-1", "no mark", "endless"],
)
def test_a_message_that_is_no_text(cli, stdin: bytes, told: str) -> None:
    result = cli("send", "ws-001", "-", stdin=stdin)
    assert (result.exit_code, contents(cli)) == (2, [])
    assert told in result.stderr
    assert "hint: " in result.stderr


@pytest.mark.usefixtures("connected")
def test_a_batch_that_is_no_text_sends_nothing(process, cli) -> None:
    ended = process("send", "ws-001", "--batch", "-", stdin="1\n2\n".encode("utf-16-le"))
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert b"stdin is not UTF-8: it looks like UTF-16" in ended.stderr
    assert contents(cli) == []


def test_an_import_whose_line_never_ends(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ws_manager.cli.commands.import_._LONGEST", 1000)
    (tmp_path / "export").write_bytes(b"x" * 5000)
    result = cli("import", str(tmp_path / "export"))
    assert result.exit_code == 2
    assert "line 1 has more than 1000 bytes" in result.stderr


@pytest.mark.parametrize(
    "command", ["send ws-001 -", "send ws-001 --batch -", "import -", "token --inspect -"]
)
def test_closed_stdin(environment: dict[str, str], command: str) -> None:
    ended = subprocess.run(
        ["bash", "-c", f'exec "$@" {command} <&-', "-", sys.executable, "-m", "ws_manager"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert (ended.returncode, "error: stdin is closed" in ended.stderr) == (2, True), ended.stderr


@encodings
class TestFiles:
    def test_token(self, tmp_path: Path, encoding: str) -> None:
        token = mint(b"k" * 32, "octavia")
        (tmp_path / "token").write_bytes(f"{token}\r\n".encode(encoding))
        assert token_file(tmp_path / "token")() == token

    def test_token_on_stdin(self, cli, encoding: str) -> None:
        token = cli("token", "octavia").stdout
        result = cli("token", "--inspect", "-", stdin=token.encode(encoding))
        assert json.loads(result.stdout)["sub"] == "octavia"

    @pytest.mark.sqlite_only("the key beside its file")
    def test_key(self, database: Path, encoding: str) -> None:
        key_path(database).write_bytes(("k" * 40 + "\r\n").encode(encoding))
        key_path(database).chmod(0o600)
        assert signing_key(database, create=False) == b"k" * 40

    def test_routes(self, tmp_path: Path, encoding: str) -> None:
        (tmp_path / "routes").write_bytes(
            '[[route]]\r\nevent = "invoice.*"\r\nagent = "Börse"\r\n'.encode(encoding)
        )
        assert [route.agent for route in load_routes(tmp_path / "routes")] == ["Börse"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("[[route]]\nevent = 'a'\n# ü".encode("latin-1"), "byte 24"),
        (b" " * (1024 * 1024 + 1), "more than 1048576"),
    ],
    ids=["Latin-1", "too large"],
)
def test_routes_that_are_no_text(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "routes").write_bytes(data)
    with pytest.raises(InvalidInput, match=told):
        load_routes(tmp_path / "routes")


@pytest.mark.sqlite_only("the key beside its file")
def test_a_key_of_random_bytes_stays_what_it_is(database: Path) -> None:
    for key in (b"\xff\xfe" + bytes(range(100, 140)), b"\xef\xbb\xbf" + b"\xff" * 40, b"\0\0" + b"\x80" * 40):
        key_path(database).write_bytes(key)
        key_path(database).chmod(0o600)
        assert signing_key(database, create=False) == key
