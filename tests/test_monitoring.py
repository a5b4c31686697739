"""`docs/monitoring/` names what a real `/metrics` prints, and has the shapes that Grafana and Prometheus read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, Optional

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.commands import EVERY, made
from tests.gateway.http.api.support import KEY, ask, token
from tests.support import Refused, gateway, run

FOLDER = Path(__file__).parent.parent / "docs" / "monitoring"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text(encoding="utf-8"))
ALERTS = FOLDER / "alerts.yml"

# Prometheus gives these to every sample, and makes `up` itself.
_TARGET = {"job": "ws-manager", "instance": "127.0.0.1:8765"}
_SELECTOR = re.compile(r"\b(up|ws_manager_\w+)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(=~|=)"([^"]*)"')
_PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    _PROMTOOL is None, reason="needs promtool (Debian's package `prometheus` has it)"
)


# The small part of YAML that alerts.yml is written in. Anything else is an error.


class _Line(NamedTuple):
    indent: int
    text: str


def parsed(text: str) -> Any:
    """Mappings, lists, plain scalars and folded ones (`>-`) as Python has them; scalars are strings."""
    lines = [_Line(len(line) - len(line.lstrip(" ")), line.strip()) for line in text.splitlines()]
    value, rest = _value([line for line in lines if line.text and not line.text.startswith("#")])
    assert not rest, f"not understood: {rest[0].text}"
    return value


def _value(lines: list[_Line]) -> tuple[Any, list[_Line]]:
    return (_list if lines[0].text.startswith("- ") else _mapping)(lines)


def _list(lines: list[_Line]) -> tuple[list[Any], list[_Line]]:
    indent, found = lines[0].indent, []
    while lines and lines[0].indent == indent and lines[0].text.startswith("- "):
        lines = [_Line(indent + 2, lines[0].text[2:]), *lines[1:]]
        value, lines = _mapping(lines)
        found.append(value)
    return found, lines


def _mapping(lines: list[_Line]) -> tuple[dict[str, Any], list[_Line]]:
    indent, found = lines[0].indent, {}
    while lines and lines[0].indent == indent:
        match = re.fullmatch(r"(\w+):(?: (.+))?", lines[0].text)
        assert match, f"not understood: {lines[0].text}"
        key, value = match[1], match[2]
        assert key not in found, f"twice: {key}"
        lines = lines[1:]
        inner = next((at for at, line in enumerate(lines) if line.indent <= indent), len(lines))
        if value is None:
            found[key], rest = _value(lines[:inner])
            assert not rest, f"not understood: {rest[0].text}"
        elif value == ">-":
            found[key] = " ".join(line.text for line in lines[:inner])
        else:
            # YAML gives a meaning to these in a plain scalar.
            assert not re.search(r"^[\[\]{}&*!|>'\"%@`,?-]|: |:$| #", value), f"has to be folded: {value}"
            assert not inner, f"not understood: {lines[0].text}"
            found[key] = value
        lines = lines[inner:]
    return found, lines


RULES = parsed(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
PANELS = DASHBOARD["panels"]


# What a gateway prints


class Scrape(NamedTuple):
    """One answer of `/metrics`.

    Attributes:
        types: by name, as the samples have it, without the suffix of a histogram.
        samples: by name, the labels of each.
    """

    types: dict[str, str]
    samples: dict[str, list[dict[str, str]]]

    def labels(self, name: str) -> set[str]:
        """The names of a metric's labels, without that of a histogram's buckets."""
        names = [sample for sample in self.samples if re.fullmatch(rf"{name}(_bucket|_sum|_count)?", sample)]
        return {label for each in names for labels in self.samples[each] for label in labels} - {"le"}


async def _scrape(database: Path) -> Scrape:
    """Ask a gateway in which everything has happened that has a label."""
    async with gateway(database, key=KEY) as running:
        agent = await running.agent(ack="explicit", access_token=token("connect"))
        for bad, status in (("nonsense", 401), (token("read"), 403)):
            with pytest.raises(Refused, match=str(status)):
                await running.agent("cipher", "ws-002", access_token=bad)
        confirmed, rejected = running.send_many(2)
        await agent.messages(2)
        await agent.ack(confirmed)
        await agent.say(type="reject", seq=rejected, reason="no")
        await running.until(lambda: running.ledger.backlog().set_aside == 1)
        await agent.say_goodbye()
        await running.socket_ended()
        await running.server.settled()
        await running.until(lambda: not len(running.server._hub))
        # An answer is counted once it is given, so the second has the first.
        await ask(running, "GET", "/metrics")
        answer = await ask(running, "GET", "/metrics")
    types: dict[str, str] = {}
    samples: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(answer.text):
        types[f"{family.name}_total" if family.type == "counter" else family.name] = family.type
        for sample in family.samples:
            samples.setdefault(sample.name, []).append(dict(sample.labels))
    return Scrape(types, samples)


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> Scrape:
    return run(_scrape(tmp_path_factory.mktemp("monitoring") / "ledger.db"))


def names(expression: str, scrape: Scrape) -> set[str]:
    """Check each selector of an expression against what a gateway prints, and return the labels that it may use."""
    usable = set(_TARGET)
    selectors = _SELECTOR.findall(expression)
    assert selectors, expression
    for name, matchers in selectors:
        series = [{}] if name == "up" else scrape.samples.get(name)
        assert series, f"no gateway prints {name}"
        found = _MATCHER.findall(matchers)
        assert ", ".join(f'{label}{sign}"{value}"' for label, sign, value in found) == matchers.strip()
        for label, sign, value in found:
            # A variable of the dashboard stands for whatever there is.
            wanted = re.compile(re.escape(value) if sign == "=" else re.sub(r"\$\w+", ".*", value))
            assert any(wanted.fullmatch({**_TARGET, **labels}.get(label, "")) for labels in series), (
                f'no series of {name} has {label}{sign}"{value}"'
            )
        usable |= {label for labels in series for label in labels}
    for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(grouped.split(", ")) <= usable, expression
    return usable


# The table of metrics


def test_the_table_has_every_metric_and_no_other(scrape: Scrape) -> None:
    rows = re.findall(r"^\| `(ws_manager_\w+)` \| (\w+) \| (.*?)\| \S.*\|$", README, re.MULTILINE)
    assert [(name, kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in sorted(rows)] == [
        (name, kind, scrape.labels(name)) for name, kind in sorted(scrape.types.items())
    ]


def test_the_text_names_no_other_metric(scrape: Scrape) -> None:
    known = {*scrape.types, *scrape.samples}
    assert set(re.findall(r"\bws_manager_\w+", README)) <= known


def test_the_table_of_alerts_has_every_alert() -> None:
    assert re.findall(r"^\| `(WsManager\w+)` \|", README, re.MULTILINE) == [rule["alert"] for rule in RULES]


# The dashboard


def expressions() -> Iterator[tuple[str, str]]:
    """Each expression of the dashboard, and the legend of its series."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield target["expr"], target["legendFormat"]


def test_the_dashboard_has_the_shape_that_grafana_imports() -> None:
    assert DASHBOARD["schemaVersion"] >= 36
    # With an id of its own, an import would replace somebody's dashboard.
    assert DASHBOARD["id"] is None
    assert DASHBOARD["uid"]
    assert DASHBOARD["title"]
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert all(variables[name]["datasource"] == source for name in ("job", "instance"))
    assert len({panel["id"] for panel in PANELS}) == len({panel["title"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel["type"] in {"timeseries", "stat", "table"}
        assert panel["description"].endswith(".")
        assert panel["datasource"] == source
        assert panel["fieldConfig"]["defaults"]["unit"]
        targets = panel["targets"]
        assert targets
        assert len({target["refId"] for target in targets}) == len(targets)
        assert all(target["expr"] and target["datasource"] == source for target in targets)


def test_no_panels_overlap() -> None:
    places = [panel["gridPos"] for panel in PANELS]
    for place in places:
        assert place["w"] > 0
        assert place["h"] > 0
        assert 0 <= place["x"] <= 24 - place["w"]
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


def test_the_dashboard_asks_for_what_a_gateway_prints(scrape: Scrape) -> None:
    for expression, legend in expressions():
        usable = names(expression, scrape)
        grouped = re.findall(r"\bby \(([^)]*)\)", expression)
        if grouped or expression.startswith(("sum", "max", "histogram_quantile")):
            # Nothing else is left of the series.
            usable &= {label for labels in grouped for label in labels.split(", ")}
        assert set(re.findall(r"{{(\w+)}}", legend)) <= usable, (expression, legend)
        # Only what was chosen at the top.
        assert all('job=~"$job", instance=~"$instance"' in more for _, more in _SELECTOR.findall(expression))
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            query = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
            assert query
            assert query[2] in names(query[1], scrape)
            assert variable["query"]["query"] == variable["definition"]


def test_the_dashboard_shows_every_metric(scrape: Scrape) -> None:
    shown = {name for expression, _ in expressions() for name, _ in _SELECTOR.findall(expression)}
    assert {re.sub("_bucket$", "", name) for name in shown} == set(scrape.types)


# The alerts


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_asks_for_what_a_gateway_prints_and_says_what_to_do(
    rule: dict[str, Any], scrape: Scrape
) -> None:
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    usable = names(rule["expr"], scrape)
    assert re.fullmatch(r"\d+m", rule["for"])
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description"}
    summary, description = rule["annotations"]["summary"], rule["annotations"]["description"]
    assert len(summary) <= 110
    for label in re.findall(r"\$labels\.(\w+)", summary + description):
        assert label in usable
    # Commands have at most two words.
    commands = re.findall(r"`ws-manager ([^`]+)`", description)
    assert commands
    for command in commands:
        name = next(name for name in EVERY if f"{command} ".startswith(f"{name} "))
        options = {option for parameter in made(name).params for option in parameter.opts}
        assert {word for word in command.split() if word.startswith("-")} <= options, command


@pytest.mark.parametrize("text", ["a: [1]", "a: b: c", 'a: "b"', "a: b\n  c: d", "- a", "a: 1\na: 2", "a b"])
def test_what_the_reader_does_not_know_is_an_error(text: str) -> None:
    with pytest.raises(AssertionError):
        parsed(text)


def promtool(*arguments: object) -> str:
    """Run promtool, which must be content, and return what it prints."""
    assert _PROMTOOL is not None
    ran = subprocess.run(
        [_PROMTOOL, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@needs_promtool
def test_prometheus_takes_the_rules() -> None:
    assert f"SUCCESS: {len(RULES)} rules found" in promtool("check", "rules", ALERTS)


@needs_promtool
def test_prometheus_understands_the_dashboard(tmp_path: Path) -> None:
    # JSON is YAML too.
    asked = [expression.replace("$__rate_interval", "5m") for expression, _ in expressions()]
    rules = [{"record": f"of_dashboard:{place}", "expr": expr} for place, expr in enumerate(asked)]
    file = tmp_path / "dashboard.json"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", file)


BUCKET = "ws_manager_commit_seconds_bucket"
HEALTHY = {"up": "1+0x180", "ws_manager_sockets": "100+0x180"}


@needs_promtool
@pytest.mark.parametrize(
    ("alert", "series"),
    [
        ("WsManagerDown", {"up": "1+0x120 0+0x60", "ws_manager_sockets": "100+0x120"}),
        ("WsManagerDown", {"other": "1+0x180"}),
        ("WsManagerOldestPending", {**HEALTHY, "ws_manager_oldest_pending_seconds": "0+60x180"}),
        ("WsManagerMessagesSetAside", {**HEALTHY, "ws_manager_messages_aside": "7+0x170 9+0x10"}),
        (
            "WsManagerCommitsSlow",
            {
                **HEALTHY,
                BUCKET + '{le="0.5"}': "0+90x180",
                BUCKET + '{le="1.0"}': "0+100x180",
                BUCKET + '{le="+Inf"}': "0+100x180",
            },
        ),
        ("WsManagerWalLarge", {**HEALTHY, "ws_manager_wal_bytes": "0+10000000x180"}),
        (
            "WsManagerPumpLag",
            {
                **HEALTHY,
                "ws_manager_pump_lag_seconds": "2+0x180",
                "ws_manager_messages_committed_total": "0+9x180",
            },
        ),
        ("WsManagerRefusals", {**HEALTHY, 'ws_manager_http_requests_total{status="401"}': "0+100x180"}),
        ("WsManagerFewSockets", {**HEALTHY, "ws_manager_sockets": "100+0x150 40+0x30"}),
        (
            None,
            {
                **HEALTHY,
                "ws_manager_sockets": "100+0x150 60+0x30",
                "ws_manager_oldest_pending_seconds": "3000+0x180",
                "ws_manager_messages_aside": "7+0x180",
                BUCKET + '{le="0.5"}': "0+100x180",
                BUCKET + '{le="+Inf"}': "0+100x180",
                "ws_manager_wal_bytes": "4000000+0x180",
                # Nothing was sent since.
                "ws_manager_pump_lag_seconds": "2+0x180",
                "ws_manager_messages_committed_total": "9+0x180",
                'ws_manager_http_requests_total{status="401"}': "0+10x180",
                'ws_manager_http_requests_total{status="404"}': "0+1000x180",
            },
        ),
    ],
)
def test_each_alert_fires_by_itself(tmp_path: Path, alert: Optional[str], series: dict[str, str]) -> None:
    """A value a minute for three hours; at their end one alert fires, or none."""
    target = ", ".join(f'{label}="{value}"' for label, value in _TARGET.items())
    inputs = [
        {
            "series": f"{name[:-1]}, {target}}}" if name.endswith("}") else f"{name}{{{target}}}",
            "values": values,
        }
        for name, values in series.items()
    ]
    firing = [{"alertname": rule["alert"], "eval_time": "3h"} for rule in RULES]
    # The test file says that nothing fires, and promtool complains of what does.
    file = tmp_path / "test.json"
    file.write_text(
        json.dumps(
            {
                "rule_files": [str(ALERTS)],
                "evaluation_interval": "1m",
                "tests": [{"interval": "1m", "input_series": inputs, "alert_rule_test": firing}],
            }
        ),
        encoding="utf-8",
    )
    assert _PROMTOOL is not None
    ran = subprocess.run(
        [_PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True, check=False, timeout=60
    )
    fired = re.findall(r"alertname: (\w+), time: 3h", ran.stdout + ran.stderr)
    assert fired == ([] if alert is None else [alert]), ran.stdout + ran.stderr
    assert (ran.returncode == 0) == (alert is None), ran.stdout + ran.stderr
