"""What `/metrics` says: counters of this process, and samples of the ledger, in the text format of Prometheus.

No label is a ws_id, an agent or a path that a client has made up, so the number of series is bounded.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import HistogramMetricFamily, Metric

from ws_manager.core.ledger import Ledger
from ws_manager.models import Receipt, Rejection, Settled, SignOfLife, SocketReport
from ws_manager.version import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of the text."""

Sample = tuple[str, dict[str, str], float]
Family = tuple[str, str, str, list[Sample]]
"""A name, a type, a help and the samples: what workers send to each other."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_RECEIPT_SECONDS = (*_SECONDS, 30.0, 60.0, 300.0)
"""An agent may work on a message before it confirms it."""

# The largest of all workers, and not their sum.
_LARGEST = frozenset({"ws_manager_pump_lag_seconds", "ws_manager_build_info"})


class _Times:
    """A histogram of seconds that takes many values at once, for a tenth of what the library's takes for each.

    Args:
        name: its whole name.
        text: its help.
        bounds: the upper bounds of its buckets, in ascending order; that of all values comes last by itself.
    """

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._text = text
        self._bounds = bounds
        # As Prometheus has it: how many values are at most so large.
        self._counts = [0] * len(bounds)
        self._count = 0
        self._sum = 0.0

    def add(self, values: list[float]) -> None:
        """Count values, in seconds. They are sorted in place."""
        values.sort()
        for place, bound in enumerate(self._bounds):
            self._counts[place] += bisect_right(values, bound)
        self._count += len(values)
        self._sum += math.fsum(values)

    def collect(self) -> Iterable[Metric]:
        """Return it as the library has it."""
        buckets = [(str(bound), float(count)) for bound, count in zip(self._bounds, self._counts)]
        buckets.append(("+Inf", float(self._count)))
        return [HistogramMetricFamily(self._name, self._text, buckets, self._sum)]


class Meters:
    """The counters of one gateway process.

    Args:
        sockets: returns the number of open sockets.
        streams: returns the number of open streams of events.
        pump_lag: returns the seconds that the last messages took from the commit's notice to their sockets.
    """

    def __init__(
        self, sockets: Callable[[], float], streams: Callable[[], float], pump_lag: Callable[[], float]
    ) -> None:
        self._registry = registry = CollectorRegistry()
        prefix = "ws_manager"
        Gauge("sockets", "Open sockets.", namespace=prefix, registry=registry).set_function(sockets)
        Gauge("event_streams", "Open streams of events.", namespace=prefix, registry=registry).set_function(
            streams
        )
        Gauge(
            "pump_lag_seconds",
            "From the notice of a commit until its messages were offered to their sockets, the last time.",
            namespace=prefix,
            registry=registry,
        ).set_function(pump_lag)
        self._confirmed = Counter(
            "messages_confirmed", "Messages that agents have confirmed.", namespace=prefix, registry=registry
        )
        self._set_aside = Counter(
            "messages_set_aside",
            "Messages that agents have rejected.",
            ["reason"],
            namespace=prefix,
            registry=registry,
        )
        self._receipt_times = _Times(
            f"{prefix}_receipt_seconds",
            "From the writing of a message to its socket until its receipt was read. Of each socket one message at a"
            " time is timed, and at most one a second.",
            _RECEIPT_SECONDS,
        )
        registry.register(self._receipt_times)
        self._round_trips = Histogram(
            "heartbeat_rtt_seconds",
            "From a Ping to its Pong: the last of each connection, about three times per heartbeat time-out.",
            namespace=prefix,
            registry=registry,
            buckets=_SECONDS,
        )
        self._commits = Histogram(
            "commit_seconds",
            "Commits of receipts, with the waiting for the write lock.",
            namespace=prefix,
            registry=registry,
            buckets=_SECONDS,
        )
        self._closes = Counter(
            "socket_closes", "Sockets that have closed.", ["code"], namespace=prefix, registry=registry
        )
        self._refusals = Counter(
            "handshake_refusals",
            "Handshakes that were refused.",
            ["status"],
            namespace=prefix,
            registry=registry,
        )
        self._requests = Counter(
            "http_requests",
            "Requests that were answered.",
            ["route", "method", "status"],
            namespace=prefix,
            registry=registry,
        )
        self._request_seconds = Histogram(
            "http_request_seconds",
            "From the head of a request to its answer.",
            ["route"],
            namespace=prefix,
            registry=registry,
            buckets=_SECONDS,
        )
        Gauge("build_info", "The version.", ["version"], namespace=prefix, registry=registry).labels(
            __version__
        ).set(1)

    def settled(self, reports: Iterable[SocketReport], seconds: float) -> None:
        """Count what was written, in one commit that took so long."""
        self._commits.observe(seconds)
        confirmed, times = 0, []
        for report in reports:
            if isinstance(report, Receipt):
                confirmed += len(report.seqs)
                if report.seconds is not None:
                    times.append(report.seconds)
            elif isinstance(report, Settled) and report.confirmed:
                confirmed += 1
            elif isinstance(report, Settled):
                self._set_aside.labels("failed").inc()
            elif isinstance(report, SignOfLife):
                if report.latency_ms is not None:
                    self._round_trips.observe(report.latency_ms / 1000)
            elif isinstance(report, Rejection):
                self._set_aside.labels("rejected").inc()
        if confirmed:
            self._confirmed.inc(confirmed)
        if times:
            self._receipt_times.add(times)

    def closed(self, code: int) -> None:
        """Count a socket that has closed."""
        self._closes.labels(str(code) if code in _CODES else "other").inc()

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer. `route` is the path of the route, with braces; empty if no route matches."""
        method = method if method in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        if route == "/ws":
            if status >= 400:
                self._refusals.labels(str(status)).inc()
        else:
            self._request_seconds.labels(route).observe(seconds)

    def families(self) -> list[Family]:
        """Return the counters of this process."""
        return [
            (
                metric.name,
                metric.type,
                metric.documentation,
                [(sample.name, dict(sample.labels), float(sample.value)) for sample in metric.samples],
            )
            for metric in self._registry.collect()
        ]


_METHODS = frozenset({"GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH"})
_CODES = frozenset(
    {1000, 1001, 1002, 1005, 1006, 1007, 1009, 1011, 1012, 4000, 4001, 4003, 4008, 4009, 4010, 4029}
)


def merged(parts: Iterable[Iterable[Any]]) -> list[Family]:
    """Return the counters of several processes as one: sums, or the largest where a sum says nothing."""
    found: dict[str, tuple[str, str, dict[tuple[str, tuple[tuple[str, str], ...]], float]]] = {}
    for part in parts:
        for name, kind, text, samples in part:
            _, _, values = found.setdefault(name, (kind, text, {}))
            for sample, labels, value in samples:
                if sample.endswith("_created"):
                    continue
                key = (sample, tuple(labels.items()))
                known = values.get(key)
                values[key] = (
                    value if known is None else max(known, value) if name in _LARGEST else known + value
                )
    return [
        (name, kind, text, [(sample, dict(labels), value) for (sample, labels), value in values.items()])
        for name, (kind, text, values) in found.items()
    ]


def of_ledger(ledger: Ledger) -> list[Family]:
    """Return samples of the ledger. Nothing is counted over whole tables."""
    sample = ledger.sample()
    waiting, aside, *_ = sample.backlog
    by_status: list[tuple[dict[str, str], float]] = [
        ({"status": "active"}, sample.active),
        ({"status": "disconnected"}, sample.disconnected),
    ]
    return [
        _family("connections", "gauge", "Connections, by status.", by_status),
        _family("messages_pending", "gauge", "Messages that wait for their connections.", [({}, waiting)]),
        _family("messages_aside", "gauge", "Messages that are set aside.", [({}, aside)]),
        _family(
            "oldest_pending_seconds",
            "gauge",
            "The age of the oldest pending message; 0 for none.",
            [({}, sample.oldest_seconds)],
        ),
        _family("ledger_bytes", "gauge", "The size of the ledger.", [({}, sample.size)]),
        _family("wal_bytes", "gauge", "The size of its write-ahead log.", [({}, sample.log_size)]),
        _family("messages_committed", "counter", "Messages that were ever sent.", [({}, sample.sent)]),
    ]


def _family(name: str, kind: str, text: str, values: Iterable[tuple[dict[str, str], float]]) -> Family:
    name = f"ws_manager_{name}"
    sample = f"{name}_total" if kind == "counter" else name
    return name, kind, text, [(sample, labels, float(value)) for labels, value in values]


def counted(meters: Meters) -> Middleware:
    """Return what counts the answers of an application."""

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        began, status = time.monotonic(), 500
        try:
            response = await handler(request)
            status = response.status
            return response
        except web.HTTPException as answer:
            status = answer.status
            raise
        finally:
            resource = request.match_info.route.resource
            route = "" if resource is None else resource.canonical
            meters.answered(route, request.method, status, time.monotonic() - began)

    return count


class _Families:
    """Gives families to the writer of the text format."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        for name, kind, text, samples in self._families:
            metric = Metric(name, text, kind)
            for sample, labels, value in samples:
                metric.add_sample(sample, labels, value)
            yield metric


def text_of(families: Iterable[Family]) -> bytes:
    """Return families in the text format."""
    registry = CollectorRegistry()
    registry.register(_Families(families))
    return bytes(generate_latest(registry))
