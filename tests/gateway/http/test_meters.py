"""The counters of a gateway's processes, and how they become one."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ws_manager.gateway.http.meters import Meters, merged, text_of
from ws_manager.models import Receipt


def meters(*seconds: float) -> Meters:
    """The counters of a process that has read a receipt after each number of seconds, and one that was not timed.

    They are written in two commits.
    """
    made = Meters(lambda: 0.0, lambda: 0.0, lambda: 0.0)
    receipts = [Receipt("ws-001", 1, [seq], "then", each) for seq, each in enumerate(seconds, 1)]
    made.settled([*receipts[1:], Receipt("ws-001", 1, [9])], 0.01)
    made.settled(receipts[:1], 0.01)
    return made


def histogram(*processes: Meters) -> dict[str, float]:
    """The times to the receipts as `/metrics` prints them: a count for each bound, and the sum."""
    text = text_of(merged([each.families() for each in processes])).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return {
        sample.labels.get("le", sample.name.rpartition("_")[2]): sample.value
        for sample in families["ws_manager_receipt_seconds"].samples
    }


def test_times_are_counted_up_to_each_bound() -> None:
    found = histogram(meters(40.0, 0.01, 0.002, 999.0))
    assert found.pop("sum") == pytest.approx(1039.012)
    assert found.pop("count") == found.pop("+Inf") == 4
    assert {float(bound): count for bound, count in found.items()} == {
        **dict.fromkeys((0.001,), 0.0),
        **dict.fromkeys((0.0025, 0.005), 1.0),
        **dict.fromkeys((0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0), 2.0),
        **dict.fromkeys((60.0, 300.0), 3.0),
    }


def test_times_of_several_processes_are_added_up() -> None:
    assert histogram(meters(0.01, 2.0), meters(), meters(0.02)) == histogram(meters(0.01, 0.02, 2.0))
