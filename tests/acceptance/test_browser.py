"""The documented page in a browser, and one with the JavaScript client. They skip where no Chromium is installed."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.chromium import SITE, Page, Site, page, serve
from tests.acceptance.processes import command, gateway_with_tokens
from tests.documentation import DOCS, ROOT
from ws_manager import get_message_history
from ws_manager.repository.sqlite.database import Database

ANSWERED, FAILED = "Network.webSocketHandshakeResponseReceived", "Network.webSocketFrameError"


@pytest.fixture
def chromium() -> str:
    """The path of Chromium."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found is not None:
            return found
    pytest.skip("no Chromium is installed")


def example(token: str, url: str) -> str:
    """The documented page, with a token and the address of a gateway."""
    (html,) = re.findall(
        r"^```html\n(.*?)^```", (DOCS / "agents.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    for written, meant in (
        ('"…"', f'"{token}"'),
        ("ws://127.0.0.1:8765/", url.replace("http", "ws", 1) + "/"),
    ):
        assert html.count(written) == 1
        html = html.replace(written, meant)
    return str(html)


@contextmanager
def opened(chromium: str, site: Site, database: Path, url: str, name: str = "localhost") -> Iterator[Page]:
    """The documented page in a browser, from a site of that name, with a token for octavia."""
    token = command(database, "token", "octavia", "--ttl", "1h").stdout.strip()
    site.html = example(token, url)
    with page(chromium, database.parent / "profile") as browser:
        browser.call("Page.navigate", url=f"http://{name}:{site.port}/")
        yield browser


def let_in(browser: Page) -> None:
    """Wait until the gateway has answered the handshake, and taken it."""
    answer = browser.event(ANSWERED, FAILED)
    assert answer["method"] == ANSWERED, answer
    response = answer["params"]["response"]
    assert (response["status"], response["headers"]["Sec-WebSocket-Protocol"]) == (101, "ws-manager.v1")


def send(database: Path, content: str, *options: str) -> None:
    """Commit a message to the page's connection."""
    sent = command(database, "send", "ws-006", content, *options)
    assert sent.returncode == 0, sent.stderr


def delivered(db: Database) -> list[int]:
    """Which messages are confirmed, from the oldest."""
    return [message["delivered"] for message in get_message_history(db)][::-1]


def test_a_page_comes_back_to_a_killed_gateway_and_shows_what_was_sent_meanwhile_first(
    database: Path, db: Database, chromium: str
) -> None:
    with (
        gateway_with_tokens(database) as (server, url),
        serve() as site,
        opened(chromium, site, database, url) as browser,
    ):
        let_in(browser)
        send(database, "before", "--wait", "30s")
        browser.shows('"before"')
        assert delivered(db) == [1]

        server.end(signal.SIGKILL)
        browser.event("Network.webSocketClosed")
        send(database, "meanwhile 1")
        send(database, "meanwhile 2")
        assert delivered(db) == [1, 0, 0]

        with gateway_with_tokens(database, "--port", url.rpartition(":")[2]):
            send(database, "newer", "--wait", "30s")
            browser.shows('"before"', '"meanwhile 1"', '"meanwhile 2"', '"newer"')
            assert delivered(db) == [1, 1, 1, 1]
            assert command(database, "list", "--all", "-o", "id").stdout == "ws-006\n"


def test_a_page_of_a_foreign_site_is_not_let_in(database: Path, chromium: str) -> None:
    with (
        gateway_with_tokens(database) as (_, url),
        serve() as site,
        opened(chromium, site, database, url, SITE) as browser,
    ):
        answer = browser.event(ANSWERED, FAILED)
        assert answer["method"] == FAILED, answer
        assert "403" in answer["params"]["errorMessage"]
        assert command(database, "list", "--all", "-o", "id").stdout == ""


def test_a_page_of_an_allowed_origin_is(database: Path, chromium: str) -> None:
    with (
        serve() as site,
        gateway_with_tokens(database, "--allow-origin", f"http://{SITE}:{site.port}") as (_, url),
        opened(chromium, site, database, url, SITE) as browser,
    ):
        let_in(browser)
        send(database, "hello", "--wait", "30s")
        browser.shows('"hello"')


def with_client(token: str, url: str) -> str:
    """A page with the JavaScript client: it shows what comes, and sends on what is a number."""
    client = (ROOT / "npm" / "client" / "index.mjs").read_text(encoding="utf-8")
    return f"""<body></body><script type="module">
{client}
const client = new AgentClient("octavia", {{ url: "{url}", wsId: "ws-006", token: "{token}" }});
const show = (text) => document.body.append(text, document.createElement("br"));
try {{
  for await (const message of client) {{
    show(JSON.stringify(message.content));
    if (typeof message.content === "number") await client.send("ws-007", message.content + 1);
    client.ack(message);
  }}
}} catch (error) {{
  show(`error ${{error.code}}`);
}}
</script>"""


def test_a_page_with_the_client_loses_and_repeats_nothing_and_stops_when_it_is_told_to(
    database: Path, db: Database, chromium: str
) -> None:
    token = command(database, "token", "octavia", "--scope", "connect send").stdout.strip()
    assert command(database, "connect", "cipher", "--ws-id", "ws-007").returncode == 0
    with gateway_with_tokens(database) as (server, url), serve() as site:
        site.html = with_client(token, url)
        with page(chromium, database.parent / "profile") as browser:
            browser.call("Page.navigate", url=f"http://localhost:{site.port}/")
            let_in(browser)
            send(database, "1", "--wait", "30s")
            browser.shows("1")
            server.end(signal.SIGKILL)
            browser.event("Network.webSocketClosed")
            send(database, "2")
            with gateway_with_tokens(database, "--port", url.rpartition(":")[2]):
                send(database, "3", "--wait", "30s")
                browser.shows("1", "2", "3")
                found = get_message_history(db, "ws-007")[::-1]
                assert [message["content"] for message in found] == ["2", "3", "4"]
                assert command(database, "disconnect", "ws-006").returncode == 0
                browser.shows("1", "2", "3", "error 4010")


def test_a_page_with_the_client_is_told_that_it_is_not_let_in(database: Path, chromium: str) -> None:
    with gateway_with_tokens(database) as (_, url), serve() as site:
        site.html = with_client("x.y.z", url)
        with page(chromium, database.parent / "profile") as browser:
            browser.call("Page.navigate", url=f"http://localhost:{site.port}/")
            browser.shows("error unavailable")
