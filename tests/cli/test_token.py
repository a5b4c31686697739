"""`ws-manager token`: the token alone on stdout, and a look into one."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from ws_manager.tokens import Claims, key_path, mint, signing_key, verify


def claims_of(database: Path, token: str) -> Claims:
    key = signing_key(database, create=False)
    assert key is not None
    return verify(key, token.strip())


def test_prints_the_token_alone(process, database: Path) -> None:
    ended = process("token", "octavia")
    assert (ended.returncode, ended.stderr, ended.stdout.count(b"\n")) == (0, b"", 1)
    claims = claims_of(database, ended.stdout.decode())
    assert (claims.agent, claims.ws_id, claims.scopes) == ("octavia", None, {"connect"})
    assert claims.expires_at - claims.issued_at == 86400


def test_makes_the_key_and_no_database(process, database: Path) -> None:
    process("token", "octavia")
    assert not database.exists()
    assert stat.S_IMODE(key_path(database).stat().st_mode) == 0o600


@pytest.mark.parametrize("scopes", [["--scope", "send connect"], ["--scope", "send", "--scope", "connect"]])
def test_says_what_was_asked_for(cli, database: Path, scopes: list[str]) -> None:
    result = cli("token", "octavia", "--ws-id", "ws-001", "--ttl", "5m", *scopes)
    claims = claims_of(database, result.stdout)
    assert (claims.ws_id, claims.scopes) == ("ws-001", {"connect", "send"})
    assert claims.expires_at - claims.issued_at == 300


def test_is_json_where_that_was_asked_for(cli, database: Path) -> None:
    assert claims_of(database, json.loads(cli("token", "*", "--json").stdout)["token"]).agent == "*"


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


def test_inspect_makes_no_key(cli, database: Path) -> None:
    assert cli("token", "--inspect", mint(b"x" * 32, "octavia")).exit_code == 4
    assert not key_path(database).exists()


def test_loads_neither_the_gateway_nor_the_ledger(modules_of) -> None:
    modules = modules_of("token", "octavia")
    assert not modules & {"aiohttp", "sqlite_utils", "rich", "filelock"}


def test_other_commands_do_not_load_jwt(modules_of) -> None:
    assert "jwt" not in modules_of("connect", "octavia")
