"""The sockets that are listened on: for every address, on one port."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.support import gateway, refusal, run
from ws_manager.errors import Conflict, InvalidInput
from ws_manager.gateway.net.binding import bind, hosts_to_bind

every_address = pytest.mark.skipif(
    tuple(int(part) for part in aiohttp.__version__.split(".")[:3]) < (3, 14, 3),
    reason="with this aiohttp only loopback addresses are served",
)


@contextlib.contextmanager
def bound(*hosts: str, port: int = 0) -> Iterator[list[tuple[str, int]]]:
    sockets = bind(hosts_to_bind(hosts), port)
    try:
        yield [each.getsockname()[:2] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


class TestBind:
    def test_every_address_is_that_of_ipv4_too(self) -> None:
        with bound("::") as addresses:
            assert {host for host, _ in addresses} == {"::", "0.0.0.0"}
            (port,) = {port for _, port in addresses}
            assert answers("127.0.0.1", port)
            assert answers("::1", port)

    def test_several_hosts_have_one_port(self) -> None:
        with bound("127.0.0.1", "127.0.0.2", "::1") as addresses:
            assert [host for host, _ in addresses] == ["127.0.0.1", "127.0.0.2", "::1"]
            (port,) = {port for _, port in addresses}
            assert not answers("127.0.0.3", port)

    def test_name_is_every_address_that_it_stands_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def resolve(*_: object, **__: object) -> list[tuple[object, ...]]:
            return [
                (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
                # This machine does not have it.
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("203.0.113.1", 0)),
            ]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        with bound("localhost") as addresses:
            assert {host for host, _ in addresses} == {"::1", "127.0.0.1"}

    def test_same_host_twice_is_bound_once(self) -> None:
        with bound("::1", "[::1]", "::1") as addresses:
            assert len(addresses) == 1

    def test_port_that_is_taken_on_one_of_them_is_a_conflict_and_leaves_none_bound(self) -> None:
        with bound("127.0.0.2") as ((_, port),):
            with (
                pytest.raises(Conflict, match=f"cannot listen on 127.0.0.2:{port}"),
                bound("127.0.0.1", "127.0.0.2", port=port),
            ):
                pass
            assert not answers("127.0.0.1", port)

    def test_free_port_is_free_on_all_of_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with bound("127.0.0.2") as ((_, taken),):
            ports = iter([taken, 0])
            bind_one = socket.socket.bind

            def first_taken(made: socket.socket, address: tuple[object, ...]) -> None:
                # As the system might: it is free on the first address, and not on the second.
                bind_one(made, (address[0], next(ports, address[1]) if address[1] == 0 else address[1]))

            monkeypatch.setattr(socket.socket, "bind", first_taken)
            with bound("127.0.0.1", "127.0.0.2") as addresses:
                (port,) = {port for _, port in addresses}
                assert port != taken

    @pytest.mark.parametrize("host", ["nothing.invalid", "a" * 70 + ".example"])
    def test_host_that_is_not_one_is_invalid(self, host: str) -> None:
        with pytest.raises(InvalidInput, match="not an address of this machine"), bound(host):
            pass

    def test_address_of_another_machine_is_a_conflict(self) -> None:
        with pytest.raises(Conflict) as refused, bound("203.0.113.1"):
            pass
        assert "--host" in (refused.value.hint or "")


class TestGateway:
    async def test_serves_every_host(self, database: Path) -> None:
        async with gateway(database, more_hosts=("::1", "127.0.0.2")) as running:
            assert [url.rpartition(":")[0] for url in running.server.urls] == [
                "http://127.0.0.1",
                "http://[::1]",
                "http://127.0.0.2",
            ]
            for url in running.server.urls:
                assert await refusal(url, "agent=octavia") == 101
                assert await refusal(url, "agent=octavia", [("Host", "127.0.0.3")]) == 403

    @every_address
    async def test_records_an_address_that_its_own_agents_reach(self, database: Path) -> None:
        key = b"the key of this test, not a secret"

        async with gateway(database, host="0.0.0.0", key=key) as running:
            latest = running.ledger.latest_gateway()
            assert latest is not None
            assert latest.url.startswith("http://127.0.0.1:")

    @every_address
    def test_every_address_is_dual_and_each_is_a_host_where_it_is_connected_to(self, database: Path) -> None:
        key = b"the key of this test, not a secret"

        async def scenario() -> list[int]:
            async with gateway(database, host="::", key=key) as running:
                assert running.url.startswith("http://[::1]:")
                found = []
                for url, host in (
                    (running.server.urls[0], "[::1]"),
                    (running.server.urls[1], "127.0.0.1"),
                    (running.server.urls[1], "[::1]"),
                    (running.server.urls[1], "localhost"),
                    (running.server.urls[1], "0.0.0.0"),
                ):
                    # 401: the Host is served, and a token is asked for.
                    found.append(await refusal(url, "agent=octavia", [("Host", host)]))
                return found

        assert run(scenario()) == [401, 401, 403, 401, 403]

    @pytest.mark.parametrize("hosts", [("127.0.0.1", "0.0.0.0"), ("::1", "::"), ("localhost", "192.0.2.1")])
    def test_each_of_them_must_be_of_this_machine_alone_without_tokens(
        self, database: Path, hosts: tuple[str, str]
    ) -> None:
        async def scenario() -> None:
            async with gateway(database, host=hosts[0], more_hosts=hosts[1:]):
                pass

        with pytest.raises(InvalidInput, match="--no-auth"):
            run(scenario())
