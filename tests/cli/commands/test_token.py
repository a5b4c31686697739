"""`ws-manager token`: the token alone on stdout, and a look into one."""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
from pathlib import Path

import pytest

from ws_manager.cli.secret_file import write_secret
from ws_manager.client.credentials import token_file
from ws_manager.errors import InvalidInput, WsManagerError
from ws_manager.tokens import Claims, key_path, mint, signing_key, verify


def claims_of(database: Path, token: str) -> Claims:
    key = signing_key(database, create=False)
    assert key is not None
    return verify(key, token.strip())


@pytest.mark.over_http
def test_prints_the_token_alone(process, database: Path) -> None:
    ended = process("token", "octavia")
    assert (ended.returncode, ended.stderr, ended.stdout.count(b"\n")) == (0, b"", 1)
    claims = claims_of(database, ended.stdout.decode())
    assert (claims.agent, claims.ws_id, claims.scopes) == ("octavia", None, {"connect"})
    assert claims.expires_at - claims.issued_at == 86400


@pytest.mark.sqlite_only("the key beside its file")
def test_makes_the_key_and_no_database(process, database: Path) -> None:
    process("token", "octavia")
    assert not database.exists()
    assert stat.S_IMODE(key_path(database).stat().st_mode) == 0o600


@pytest.mark.parametrize("scopes", [["--scope", "send connect"], ["--scope", "send", "--scope", "connect"]])
@pytest.mark.over_http
def test_says_what_was_asked_for(cli, database: Path, scopes: list[str]) -> None:
    result = cli("token", "octavia", "--ws-id", "ws-001", "--ttl", "5m", *scopes)
    claims = claims_of(database, result.stdout)
    assert (claims.ws_id, claims.scopes) == ("ws-001", {"connect", "send"})
    assert claims.expires_at - claims.issued_at == 300


@pytest.mark.over_http
def test_is_json_where_that_was_asked_for(cli, database: Path) -> None:
    assert claims_of(database, json.loads(cli("token", "*", "--json").stdout)["token"]).agent == "*"


@pytest.mark.sqlite_only("the key beside its file")
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [""],
        ["a\nb"],
        ["octavia", "--ws-id", ""],
        ["octavia", "--scope", "fly"],
        ["octavia", "--scope", ""],
        ["octavia", "--ttl", "0"],
        ["octavia", "--ttl", "soon"],
        ["--inspect"],
    ],
)
def test_that_cannot_be_made_makes_no_key(cli, database: Path, arguments: list[str]) -> None:
    result = cli("token", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert not key_path(database).exists()


def test_short_secret_is_refused_and_not_shown(process) -> None:
    ended = process("token", "octavia", BLACKROAD_WS_SECRET="hunter2")
    assert (ended.returncode, ended.stdout, b"hunter2" in ended.stderr) == (2, b"", False)


@pytest.mark.sqlite_only("the key beside its file")
def test_is_signed_with_the_secret_of_the_environment(process, database: Path) -> None:
    ended = process("token", "octavia", BLACKROAD_WS_SECRET="s" * 32)
    assert verify(b"s" * 32, ended.stdout.decode().strip()).agent == "octavia"
    assert not key_path(database).exists()


@pytest.mark.parametrize("how", ["argument", "stdin", "environment"])
def test_inspect_shows_the_claims(process, database: Path, how: str) -> None:
    token = process("token", "octavia", "--ws-id", "ws-001").stdout.strip()
    if how == "argument":
        ended = process("token", "--inspect", token.decode())
    elif how == "stdin":
        ended = process("token", "--inspect", "-", stdin=token + b"\n")
    else:
        ended = process("token", "--inspect", BLACKROAD_WS_TOKEN=token.decode())
    shown = json.loads(ended.stdout)
    assert list(shown) == ["sub", "ws_id", "scope", "aud", "iat", "exp", "jti"]
    assert [shown[name] for name in ("sub", "ws_id", "scope", "aud")] == [
        "octavia",
        "ws-001",
        "connect",
        "ws-manager",
    ]


@pytest.mark.parametrize("given", ["expired", "foreign", "nonsense"])
def test_inspect_of_what_is_not_valid_exits_with_4_and_does_not_repeat_it(
    cli, database: Path, given: str
) -> None:
    key = signing_key(database, create=True)
    assert key is not None
    token = {
        "expired": mint(key, "octavia", now=1000),
        "foreign": mint(b"x" * 32, "octavia"),
        "nonsense": "no-token-at-all",
    }[given]
    result = cli("token", "--inspect", token)
    assert (result.exit_code, result.stdout) == (4, "")
    assert token not in result.stderr
    assert key.decode() not in result.stderr


@pytest.mark.sqlite_only("the key beside its file")
def test_inspect_makes_no_key(cli, database: Path) -> None:
    assert cli("token", "--inspect", mint(b"x" * 32, "octavia")).exit_code == 4
    assert not key_path(database).exists()


def test_loads_neither_the_gateway_nor_the_ledger(modules_of) -> None:
    modules = modules_of("token", "octavia")
    assert not modules & {"aiohttp", "sqlite_utils", "rich"}


def test_other_commands_do_not_load_jwt(modules_of) -> None:
    assert "jwt" not in modules_of("connect", "octavia")


class TestOut:
    @pytest.mark.over_http
    def test_writes_the_token_to_a_file_that_only_its_owner_can_read(
        self, process, database: Path, tmp_path: Path
    ) -> None:
        file = tmp_path / "octavia.token"
        umask = os.umask(0)
        try:
            ended = process("token", "octavia", "--ttl", "30d", "--out", str(file))
        finally:
            os.umask(umask)
        assert (ended.returncode, ended.stderr) == (0, b"")
        token = file.read_text()
        assert (claims_of(database, token).agent, token.count("\n")) == ("octavia", 1)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert ended.stdout.startswith(f"Wrote a token to {file} (agent=octavia, expires ".encode())
        assert token.strip().encode() not in ended.stdout
        assert token_file(file)() == token.strip()

    @pytest.mark.over_http
    def test_replaces_a_file_as_a_whole(self, cli, database: Path, tmp_path: Path) -> None:
        file = tmp_path / "octavia.token"
        file.write_text("an older one, which is longer than any token is" * 100)
        file.chmod(0o644)
        with file.open() as old:
            assert cli("token", "octavia", "--out", str(file)).exit_code == 0
            # Who reads it just now gets a whole token, the old one.
            assert old.read().startswith("an older one")
        assert claims_of(database, file.read_text()).agent == "octavia"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert sorted(path.name for path in tmp_path.glob("*token*")) == ["octavia.token"]

    def test_says_where_as_json(self, cli, tmp_path: Path) -> None:
        told = json.loads(cli("token", "octavia", "--out", str(tmp_path / "t"), "--json").stdout)
        assert told.keys() == {"file", "agent", "expires_at"}
        assert (told["file"], told["agent"]) == (str(tmp_path / "t"), "octavia")

    @pytest.mark.parametrize(
        "what", ["link", "dangling link", "folder", "pipe", "no folder", "file as folder"]
    )
    def test_replaces_nothing_but_a_file(self, cli, database: Path, tmp_path: Path, what: str) -> None:
        place, other = tmp_path / "place", tmp_path / "other"
        other.write_text("precious")
        if what == "link":
            place.symlink_to(other)
        elif what == "dangling link":
            place.symlink_to(tmp_path / "nothing")
        elif what == "folder":
            place.mkdir()
        elif what == "pipe":
            os.mkfifo(place)
        elif what == "no folder":
            place = tmp_path / "nowhere" / "place"
        else:
            place = other / "place"
        result = cli("token", "octavia", "--out", str(place))
        assert (result.exit_code, result.stdout, "Traceback" in result.stderr) == (2, "", False)
        assert "place" in result.stderr or "nowhere" in result.stderr
        assert other.read_text() == "precious"
        assert not (tmp_path / "nothing").exists()
        # What cannot be written is said before a key is made.
        assert not key_path(database).exists()

    @pytest.mark.sqlite_only("the key beside its file")
    @pytest.mark.parametrize("name", ["-", ""])
    def test_is_the_name_of_a_file(
        self, cli, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        result = cli("token", "octavia", "--out", name)
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"--out needs the name of a file, not '{name}'" in result.stderr
        assert not Path("-").exists()
        assert not key_path(database).exists()

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be two users")
    def test_root_leaves_the_file_with_its_owner(self, cli, tmp_path: Path) -> None:
        file = tmp_path / "octavia.token"
        file.write_text("old")
        os.chown(file, 4321, 4322)
        assert cli("token", "octavia", "--out", str(file)).exit_code == 0
        status = file.stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (4321, 4322, 0o600)

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be two users")
    def test_a_file_of_another_user_is_not_replaced(self) -> None:
        # Not below pytest's own folder, which others cannot enter.
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.chmod(0o777)
            file = folder / "octavia.token"
            file.write_text("of root")
            child = os.fork()
            if child == 0:
                os.setuid(4321)
                try:
                    write_secret(file, "of another")
                except InvalidInput as error:
                    os._exit(0 if "belongs to another user" in error.message else 2)
                os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
            assert file.read_text() == "of root"

    def test_a_disk_without_room_leaves_the_old_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "octavia.token"
        file.write_text("old")

        def full(_descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "no room")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(WsManagerError, match="No space left"):
            write_secret(file, "new")
        assert file.read_text() == "old"
        assert list(tmp_path.iterdir()) == [file]

    def test_goes_without_inspect(self, cli, tmp_path: Path) -> None:
        assert cli("token", "x", "--inspect", "--out", str(tmp_path / "t")).exit_code == 2
