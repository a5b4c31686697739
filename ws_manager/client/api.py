"""Requests to a gateway's HTTP API. They are retried where that is safe, and raise the errors of the gateway."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException
from typing import Any, Callable, Optional, Union
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from urllib3.util import Retry, Timeout, make_headers

from ws_manager.client.answers import Answer, is_object, problem_of, strange
from ws_manager.client.errors import error_of
from ws_manager.errors import GatewayUnavailable, InvalidInput, NotAuthorised, NotFound, WsManagerError
from ws_manager.models import new_id
from ws_manager.proxies import proxy_for, unreachable
from ws_manager.remedies import CHECK_URL, CHECK_URL_AND_PROXY, GIVE_CA, GIVE_TOKEN, PUT_TOKEN_IN_FILE
from ws_manager.strict_json import written

RETRIED = frozenset({408, 429, 502, 503, 504})
"""The statuses after which a request is sent again: a server or a proxy could not do it then."""

RETRIES = 5
"""How often a request is sent again: over about 8 s."""

PAGE = 250
"""Items that are asked for at once."""

MOST_BYTES = 300 * 1024 * 1024
"""Bytes of an answer, or of a line of one: more than any page has."""

_CONNECT_SECONDS, _READ_SECONDS = 10.0, 40.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 4.0
_WHOLE_SECONDS = 120.0
_PIECE = 64 * 1024
_LONGEST_TARGET = 8000

Query = Mapping[str, Union[str, int, float, bool, Sequence[str], None]]


class _Retry(Retry):
    """Pauses as a server asks, but never for long, and reports the first pause."""

    on_retry: Callable[[], None]

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> Optional[float]:
        """Return the seconds of `Retry-After` (RFC 9110 section 10.2.3)."""
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, _LONGEST_PAUSE)

    def increment(
        self,
        method: Optional[str] = None,
        url: Optional[str] = None,
        response: Optional[urllib3.BaseHTTPResponse] = None,
        error: Optional[Exception] = None,
        *more: Any,  # noqa: ANN401 - urllib3's own
        **options: Any,  # noqa: ANN401
    ) -> _Retry:
        """Return what is left after a failed attempt; a name that nobody knows is not tried again."""
        if isinstance(error, urllib3.exceptions.NameResolutionError):
            raise error
        return super().increment(method, url, response, error, *more, **options)

    def new(self, **changes: Any) -> _Retry:  # noqa: ANN401 - urllib3's own
        """Return what is left after one more attempt."""
        if not self.history:
            self.on_retry()
        following = super().new(**changes)
        following.on_retry = self.on_retry
        return following


class ApiClient:
    """A gateway's HTTP API.

    Args:
        url: the gateway's base address: `http`, `https`, `ws` or `wss`.
        token: returns the token for the next request; None for none.
        tls: what checks the gateway's certificate; the system's certificates if None.
        on_retry: called when a request is sent again for the first time.

    Attributes:
        url: the base address, `http` or `https`.

    Raises:
        InvalidInput: the address or the proxy cannot be used.
    """

    def __init__(
        self,
        url: str,
        token: Callable[[], Optional[str]],
        tls: Optional[ssl.SSLContext] = None,
        on_retry: Callable[[], None] = lambda: None,
    ) -> None:
        self.url = base_address(url)
        self._token = token
        self._tls = tls
        self._on_retry = on_retry
        self._proxy = proxy_for(self.url)
        self._http = _pool(self._proxy, tls)

    def close(self) -> None:
        """Close its connections."""
        self._http.clear()

    def again(self) -> ApiClient:
        """Return another client of the same gateway."""
        return ApiClient(self.url, self._token, self._tls, self._on_retry)

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Optional[Query] = None,
        body: Optional[Mapping[str, Any]] = None,
        key: Optional[str] = None,
        patient: bool = True,
    ) -> Answer:
        """Send a request, again if necessary, and return its answer.

        Args:
            method: HTTP method.
            path: below the base address, its parts quoted: see `path_of`.
            query: parameters; None leaves one out.
            body: members of a JSON object; `Json` in it stays as it is.
            key: an idempotency key; a random one of 128 bits if None, so that no request is done twice.
            patient: False sends it once only.

        Raises:
            WsManagerError: what the gateway answered.
            GatewayUnavailable: it does not answer, or what answers is not a gateway.
            NotAuthorised: it asks for a token.
        """
        headers = {"Idempotency-Key": key or new_id()} if method in ("POST", "DELETE") else {}
        data = None
        if body is not None:
            data, headers["Content-Type"] = _utf8(written(body)), "application/json"
        retries = RETRIES if patient else 0
        for attempt in range(retries + 1):
            response = self._sent(method, path, query, data, headers, retries)
            text = self._read(response)
            if text is not None:
                break
            _pause(attempt)
        else:
            raise self._broke_off()
        if response.status >= 300:
            raise self._refused(response.status, problem_of(_kind(response), text))
        if not _kind(response).startswith("application/json"):
            raise self._not_a_gateway(response.status)
        if not is_object(text):
            raise strange("is not a JSON object")
        return Answer(response.status, text, "Idempotency-Replayed" in response.headers)

    def pages(
        self, what: str, query: Query, limit: Optional[int] = None, after: Optional[str] = None
    ) -> list[str]:
        """Return the texts of the items of a list, over all of its pages: at most `limit`."""
        found: list[str] = []
        while limit is None or len(found) < limit:
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            answer = self.call("GET", path_of(what), query={**query, "limit": size, "after": after})
            items = answer.items()
            found += items
            before, after = after, answer.body["next"]
            if after is None:
                break
            if not items or after == before:
                raise strange("has a next page without end")
        return found

    def stream(self, method: str, path: str, data: Optional[bytes] = None) -> Iterator[bytes]:
        """Send a request, and give its answer in pieces.

        Raises:
            GatewayUnavailable: it broke off before its end; besides, as `call`.
        """
        kind = {} if data is None else {"Content-Type": "application/x-ndjson"}
        response = self._sent(method, path, None, data, kind)
        if response.status >= 300:
            text = self._read(response)
            raise self._refused(response.status, None if text is None else problem_of(_kind(response), text))
        try:
            yield from response.stream(_PIECE, decode_content=False)
        except (urllib3.exceptions.HTTPError, HTTPException, OSError):
            raise self._broke_off() from None
        finally:
            response.close()

    def lines(self, method: str, path: str, data: Optional[bytes] = None) -> Iterator[str]:
        """Send a request, and give its answer in lines, without one that has no end. Errors are those of `stream`."""
        rest: list[bytes] = []
        size = 0
        for piece in self.stream(method, path, data):
            first, *others = piece.split(b"\n")
            for part in others:
                rest.append(first)
                yield b"".join(rest).decode("utf-8", "replace")
                rest, size, first = [], 0, part
            rest.append(first)
            size += len(first)
            if size > MOST_BYTES:
                raise strange("has a line without end")

    def _sent(
        self,
        method: str,
        path: str,
        query: Optional[Query],
        data: Optional[bytes],
        headers: dict[str, str],
        retries: int = RETRIES,
    ) -> urllib3.BaseHTTPResponse:
        """Send a request, and return its answer, whose body is not read yet."""
        token = self._token()
        if token is not None:
            # RFC 6750 section 2.1. Not in the address: addresses end up in logs.
            headers["Authorization"] = f"Bearer {token}"
        # What is compressed could be of any size.
        headers["Accept-Encoding"] = "identity"
        target = f"{path}{_query_of(query)}"
        if len(target) > _LONGEST_TARGET:
            raise InvalidInput("that is too long for a request", hint="ask for less at once")
        try:
            return self._http.request(
                method,
                self.url + target,
                body=data,
                headers=headers,
                retries=self._retry(retries),
                redirect=False,
                preload_content=False,
                timeout=Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
            )
        except urllib3.exceptions.MaxRetryError as error:
            raise self._unreachable(error.reason or error) from None
        except (urllib3.exceptions.HTTPError, OSError, HTTPException) as error:
            raise self._unreachable(error) from None

    def _read(self, response: urllib3.BaseHTTPResponse) -> Optional[str]:
        """Return the whole body of an answer as text; None if it broke off.

        Raises:
            GatewayUnavailable: it is too large, or takes too long.
        """
        # Every answer says of what type it is. `http.client` takes a head that breaks off for a whole one.
        if "Content-Type" not in response.headers:
            response.close()
            return None
        pieces, size, until = [], 0, time.monotonic() + _WHOLE_SECONDS
        try:
            for piece in response.stream(_PIECE, decode_content=False):
                pieces.append(piece)
                size += len(piece)
                if size > MOST_BYTES or time.monotonic() > until:
                    response.close()
                    raise strange("has no end")
        except (urllib3.exceptions.HTTPError, HTTPException, OSError):
            response.close()
            return None
        response.release_conn()
        return b"".join(pieces).decode("utf-8", "replace")

    def _retry(self, retries: int) -> Retry:
        retry = _Retry(
            total=retries,
            # Such as a certificate that is not to be trusted.
            other=0,
            allowed_methods=None,
            status_forcelist=RETRIED,
            backoff_factor=_FIRST_PAUSE,
            backoff_max=_LONGEST_PAUSE,
            backoff_jitter=_FIRST_PAUSE,
            raise_on_status=False,
        )
        retry.on_retry = self._on_retry
        return retry

    def _refused(self, status: int, problem: Optional[dict[str, Any]]) -> WsManagerError:
        if problem is None:
            return self._not_a_gateway(status)
        if status == 401:
            return NotAuthorised(
                f"{self.url} asks for a valid token (401): {problem['detail']}", remedy=GIVE_TOKEN
            )
        return error_of(problem)

    def _broke_off(self) -> GatewayUnavailable:
        return GatewayUnavailable(f"the answer of the gateway at {self.url} broke off", hint="try again")

    def _not_a_gateway(self, status: int) -> GatewayUnavailable:
        return GatewayUnavailable(
            f"{self.url} answered {status}, and not as a gateway does", remedy=CHECK_URL_AND_PROXY
        )

    def _unreachable(self, cause: object) -> GatewayUnavailable:
        if isinstance(cause, urllib3.exceptions.SSLError):
            cause = cause.args[0] if cause.args else cause
            if "WRONG_VERSION_NUMBER" in str(cause):
                return GatewayUnavailable(
                    f"{self.url} does not speak TLS", hint="give its address with http://"
                )
            return GatewayUnavailable(
                f"the certificate of {self.url} is not to be trusted: "
                f"{getattr(cause, 'verify_message', '') or cause}",
                remedy=GIVE_CA,
            )
        if isinstance(cause, urllib3.exceptions.NameResolutionError) and self._proxy is None:
            return GatewayUnavailable(f"the name in {self.url} is not known", remedy=CHECK_URL)
        return unreachable(_words(cause), self.url, self._proxy)


def base_address(url: str) -> str:
    """Return a gateway's base address with `http` or `https`, without a slash at its end.

    Raises:
        InvalidInput: it is not one.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InvalidInput(f"not the address of a gateway: {url}", hint="for example http://127.0.0.1:8765")
    if "@" in parts.netloc or parts.query or parts.fragment:
        # It would be dropped, and may be a secret, so the error does not quote it.
        raise InvalidInput(
            "the gateway's address is a base address: without a user, parameters or a fragment",
            remedy=PUT_TOKEN_IN_FILE,
        )
    return f"{_SCHEMES[parts.scheme]}://{parts.netloc}{parts.path.rstrip('/')}"


def path_of(*parts: str) -> str:
    """Return a path of the API below `/v1`, its parts quoted.

    Raises:
        NotFound: a part is empty: nothing has such a name.
        InvalidInput: a part is not valid Unicode.
    """
    if "" in parts:
        raise NotFound("nothing has an empty name", hint="give the name")
    # "." and ".." are names here, and not steps in a path.
    return "/v1/" + "/".join(quote(_utf8(part), safe="").replace(".", "%2E") for part in parts)


_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


def _pool(proxy: Optional[str], tls: Optional[ssl.SSLContext]) -> urllib3.PoolManager:
    options: dict[str, Any] = {} if tls is None else {"ssl_context": tls}
    if proxy is None:
        return urllib3.PoolManager(**options)
    parts = urlsplit(proxy)
    user, _, _host = parts.netloc.rpartition("@")
    return urllib3.ProxyManager(
        f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
        proxy_headers=make_headers(proxy_basic_auth=user) if user else None,
        **options,
    )


def _query_of(query: Optional[Query]) -> str:
    pairs: list[tuple[str, str]] = []
    for name, value in (query or {}).items():
        values = value if isinstance(value, (list, tuple)) else [value]
        pairs += [(name, _text(each)) for each in values if each is not None]
    return f"?{urlencode([(name, _utf8(value)) for name, value in pairs])}" if pairs else ""


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        # For example what the shell passes on for bytes that are not UTF-8.
        raise InvalidInput("a name or a text is not valid Unicode", hint="give it in UTF-8") from None


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kind(response: urllib3.BaseHTTPResponse) -> str:
    return response.headers.get("Content-Type", "")


def _pause(attempt: int) -> None:
    time.sleep(min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE))


def _words(cause: object) -> object:
    """Return the cause of a lost connection, without what urllib3 and the system put before it."""
    found = getattr(cause, "__cause__", None) or cause
    inner = getattr(found, "args", ())
    if isinstance(found, urllib3.exceptions.TimeoutError):
        return "no answer in time"
    if isinstance(found, urllib3.exceptions.ProtocolError) and inner:
        return str(inner[0]).rstrip(".")
    words = str(found).rpartition("Failed to establish a new connection: ")[2]
    return re.sub(r"^\[Errno -?\d+\] ", "", words) or found
