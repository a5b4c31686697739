"""Under which names the gateway may be addressed, from which pages, and what cannot be either."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import gateway, refusal, run
from ws_manager.errors import InvalidInput
from ws_manager.gateway.http.names import Names

APPS = (
    "tauri://localhost",
    "capacitor://localhost",
    "ionic://localhost",
    "chrome-extension://ponfpcnoihfmfllpaingbgckeeldkhle",
    "moz-extension://0b8bd8a5-5f3e-4b43-8b0c-3c1f0a0f6d2c",
    "app://obsidian.md",
    "vscode-webview://1A2b3c",
    "tauri://localhost:1430",
    "file://",
)


def names(*, public: tuple[str, ...] = (), origins: tuple[str, ...] = ()) -> Names:
    return Names(["127.0.0.1"], public, origins)


class TestOrigin:
    @pytest.mark.parametrize("origin", APPS)
    def test_of_any_scheme_connects_where_it_is_listed(self, database: Path, origin: str) -> None:
        async def scenario() -> list[int]:
            async with gateway(database, origins=(origin,)) as running:
                return [
                    await refusal(running.url, "agent=octavia", [("Origin", each)])
                    for each in (origin, f"{origin}x", "null")
                ]

        assert run(scenario()) == [101, 403, 403]

    @pytest.mark.parametrize(
        ("listed", "other"),
        [
            ("tauri://localhost", "tauri://LOCALHOST"),
            ("tauri://localhost", "capacitor://localhost"),
            ("tauri://localhost", "tauri://localhost/"),
            ("tauri://localhost", "tauri://localhost:80"),
            ("tauri://localhost", "tauri://localhost.example.com"),
            ("tauri://localhost", "http://tauri.localhost"),
            ("chrome-extension://abcd", "chrome-extension://abce"),
            ("https://app.example.com", "https://app.example.com.evil.example"),
            ("https://app.example.com", "https://evil-app.example.com"),
            ("https://app.example.com", "https://app.example.com:8443"),
            ("https://app.example.com", "http://app.example.com"),
            ("https://app.example.com", "https://app.example.com/"),
        ],
    )
    def test_another_than_the_listed_one_does_not_connect(self, listed: str, other: str) -> None:
        assert names(origins=(listed,)).allows(listed, None)
        assert not names(origins=(listed,)).allows(other, None)

    @pytest.mark.parametrize(
        ("listed", "sent"),
        [
            ("https://APP.example.com", "https://app.example.com"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("http://app.example.com:80", "http://app.example.com"),
            ("HTTPS://app.example.com", "https://app.example.com"),
            ("Tauri://localhost", "tauri://localhost"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            ("https://[fd00::2]:8443", "https://[fd00::2]:8443"),
        ],
    )
    def test_is_compared_in_the_form_that_browsers_send(self, listed: str, sent: str) -> None:
        assert names(origins=(listed,)).allows(sent, None)

    @pytest.mark.parametrize(
        "pattern",
        ["*", "https://*.x", "https://*", "*://localhost", "tauri://*", "https://app.example.com:*"],
    )
    def test_pattern_is_refused_at_the_start(self, pattern: str) -> None:
        with pytest.raises(InvalidInput, match="takes no pattern"):
            names(origins=(pattern,))

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "null",
            "localhost",
            "app.example.com",
            "https://",
            "https://app.example.com/",
            "https://app.example.com/page",
            "https://app.example.com?x",
            "https://user@app.example.com",
            "https://app example.com",
            "https://app.example.com:99999",
            "https://app..example.com",
            "https://?.example.com",
            "https://[a-z].example.com",
            "tauri://localhost/",
            "tauri://local host",
            "tauri://lökal",
            "wss://app.example.com",
            "ws://localhost:8765",
            "1app://localhost",
            "://localhost",
            "tauri:localhost",
        ],
    )
    def test_what_no_browser_sends_is_refused_at_the_start(self, text: str) -> None:
        if text == "tauri://lökal":
            # It has a form in ASCII, as a name has.
            assert names(origins=(text,)).allows("tauri://xn--lkal-5qa", None)
            return
        with pytest.raises(InvalidInput) as refused:
            names(origins=(text,))
        assert repr(text) in refused.value.message


class TestPublicHost:
    @pytest.mark.parametrize(
        ("listed", "sent"),
        [
            ("gateway.example.com", "gateway.example.com"),
            ("gateway.example.com", "GATEWAY.example.com:443"),
            ("gateway.example.com:8765", "gateway.example.com"),
            ("my_service", "my_service:8765"),
            ("192.0.2.1", "192.0.2.1:8765"),
            ("fd00::2", "[fd00::2]:8765"),
            ("[fd00::2]", "[fd00::2]"),
            ("bücher.example", "xn--bcher-kva.example"),
        ],
    )
    def test_is_served(self, listed: str, sent: str) -> None:
        assert names(public=(listed,)).has_host(sent, None)
        assert not names(public=(listed,)).has_host(f"x{sent}", None)

    @pytest.mark.parametrize("pattern", ["*", "*.example.com", "gateway.*", "[*]"])
    def test_pattern_is_refused_at_the_start(self, pattern: str) -> None:
        with pytest.raises(InvalidInput, match="takes no pattern"):
            names(public=(pattern,))

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "https://gateway.example.com",
            "tauri://localhost",
            "gateway.example.com/ws",
            "user@gateway.example.com",
            "gateway example",
            ".example.com",
            "gateway.example.com.",
            "gateway..example.com",
            "gateway.example.com:port",
            "?.example.com",
            "0.0.0.0",
            "::",
        ],
    )
    def test_what_no_client_sends_is_refused_at_the_start(self, text: str) -> None:
        with pytest.raises(InvalidInput) as refused:
            names(public=(text,))
        assert repr(text) in refused.value.message
