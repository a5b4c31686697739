"""How the benchmarks measure: medians, pairs taken in turn, and lines of a table."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the results.

    Attributes:
        what: what was measured.
        figure: the value, with its unit.
        budget: what it may be, in words.
        met: whether it is; None for a fact beside the budgets.
        spread: the quarter of the runs that was fastest, and the quarter that was slowest, end here.
    """

    what: str
    figure: str
    budget: str = ""
    met: bool | None = None
    spread: str = ""

    @property
    def verdict(self) -> str:
        return "" if self.met is None else "met" if self.met else "missed"


def seconds(work: Callable[[], object]) -> float:
    """Return how long one call takes. What the calls before left behind is not collected in it."""
    gc.collect()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turn(rounds: int, *works: Callable[[], object]) -> list[list[float]]:
    """Run each in turn, so many rounds, so that whatever else the machine does falls on all of them alike."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for taken, work in zip(times, works):
            taken.append(seconds(work))
    return times


def ratios(those: list[float], to: list[float]) -> list[float]:
    """Return the ratio of each pair that was measured side by side."""
    return [one / other for one, other in zip(those, to)]


def middle(values: list[float]) -> float:
    return statistics.median(values)


def quarters(values: list[float], unit: str = "", scale: float = 1.0, digits: int = 2) -> str:
    """Return the first and the third quartile as text."""
    if len(values) < 2:
        return ""
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return f"{first * scale:,.{digits}f} to {third * scale:,.{digits}f}{unit}"
