"""`bar`, `unbar` and `token --revoke`, without a gateway."""

from __future__ import annotations

import json

import pytest

from ws_manager.tokens import jti_of

pytestmark = pytest.mark.over_http


def test_bar_ends_and_unbar_lets_in(cli, connected) -> None:
    barred = cli("bar", "octavia")
    assert (barred.exit_code, barred.stdout) == (0, "Barred: octavia (2 connection(s) ended)\n")
    assert cli("list", "-o", "id").stdout == "ws-003\n"
    assert json.loads(cli("bar", "--json").stdout)[0]["agent"] == "octavia"
    assert "was barred already" in cli("bar", "octavia").stderr
    assert cli("unbar", "octavia").stdout == "Unbarred: octavia\n"
    again = cli("unbar", "octavia")
    assert (again.exit_code, "hint: ws-manager bar lists" in again.stderr) == (3, True)
    assert cli("bar").stdout == ""


def test_bar_says_that_a_name_is_unknown(cli, connected) -> None:
    assert "no agent octvia has ever connected" in cli("bar", "octvia").stderr


def test_revoke_by_name_and_by_the_token_itself(cli, connected) -> None:
    made = cli("token", "octavia").stdout.strip()
    jti = jti_of(made)
    assert cli("token", "--revoke", jti).stdout == f"Revoked: {jti} (0 connection(s) ended)\n"
    again = cli("token", "--revoke", "-", stdin=made.encode())
    assert (again.stdout, again.stderr) == (
        f"Revoked: {jti} (0 connection(s) ended)\n",
        f"note: {jti} was revoked already\n",
    )


def test_revoke_and_other_things_exclude_each_other(cli, connected) -> None:
    assert cli("token", "octavia", "--revoke", "x").exit_code == 2
    assert cli("token", "--inspect", "--revoke", "x").exit_code == 2
    assert cli("token", "--revoke", "a.b.c").exit_code == 4


def test_a_terminal_is_asked(terminal, cli, connected) -> None:
    code, shown = terminal("bar", "octavia", typed="n\n")
    assert code == 2
    assert "Bar octavia, and end its 2 connection(s)? [y/N]" in shown
    assert cli("list", "--count").stdout == "3\n"
    assert terminal("bar", "octavia", typed="y\n")[0] == 0
    assert terminal("disconnect", "--agent", "cipher", "--yes")[0] == 0
    assert cli("list", "--count").stdout == "0\n"
