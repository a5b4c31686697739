"""A page in headless Chromium, driven by the DevTools protocol: https://chromedevtools.github.io/devtools-protocol/."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

from tests.acceptance.processes import PATIENCE, running

SITE = "app.example.com"
"""A foreign site's name: the browser takes it, and no other but localhost, for this machine's."""

Event = dict[str, Any]


class Page:
    """A tab: it is told what to do, and its events can be waited for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._session: dict[str, str] = {}
        self._calls = 0
        self._events: list[Event] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        self.call("Network.enable")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Call a method, and wait for its result."""
        self._calls += 1
        self._connection.send(
            json.dumps({"id": self._calls, "method": method, "params": parameters, **self._session})
        )
        while True:
            said = self._next()
            if said.get("id") == self._calls:
                assert "error" not in said, said
                result: dict[str, Any] = said["result"]
                return result
            self._events.append(said)

    def event(self, *methods: str) -> Event:
        """Wait for the next event of one of these kinds; those before it are passed over."""
        while True:
            said = self._events.pop(0) if self._events else self._next()
            if said.get("method") in methods:
                return said

    def shows(self, *lines: str) -> None:
        """Wait until the text of the page is these lines.

        Raises:
            AssertionError: it has others after the time that a test has.
        """
        watch = """new Promise((resolve) => {
            // A page that is still loading has no body.
            const text = () => document.body?.innerText.trim();
            const look = () => text() === %s && resolve(true);
            new MutationObserver(look).observe(document, { childList: true, subtree: true });
            look();
            setTimeout(() => resolve(text()), %d);
        })"""
        found = self.call(
            "Runtime.evaluate",
            expression=watch % (json.dumps("\n".join(lines)), PATIENCE * 500),
            awaitPromise=True,
            returnByValue=True,
        )
        assert found["result"].get("value") is True, found

    def _next(self) -> Event:
        said: Event = json.loads(self._connection.recv(timeout=PATIENCE))
        return said


@contextmanager
def page(executable: str, profile: Path) -> Iterator[Page]:
    """Run Chromium with an empty profile, and give it one empty page."""
    names = f"MAP {SITE} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"
    with running(
        *(executable, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--disable-dev-shm-usage", "--no-proxy-server", f"--host-resolver-rules={names}"),
        *(f"--user-data-dir={profile}", "--remote-debugging-port=0"),
    ) as program:
        address = program.error_line("DevTools listening on ").rpartition(" ")[2]
        with connect(address, max_size=None, proxy=None) as connection:
            yield Page(connection)
        program.end()


class Site:
    """A site of one page, whatever the path and the name; the page can be changed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.html = ""


@contextmanager
def serve() -> Iterator[Site]:
    """Serve a site on a port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = site.html.encode("utf-8")
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: stderr is the test's."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site = Site(server.server_port)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
