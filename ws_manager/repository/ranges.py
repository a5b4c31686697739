"""Ids as text, as the journal of receipts and a copy of it have them: `4-1003,1010`, neighbours as a range."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def runs_of(seqs: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Give the runs of neighbours among ascending numbers, each as its first and its last number."""
    start = 0
    for end in range(1, len(seqs) + 1):
        if end == len(seqs) or seqs[end] != seqs[end - 1] + 1:
            yield seqs[start], seqs[end - 1]
            start = end


def ranges_of(seqs: Iterable[int]) -> str:
    """Return numbers as text, in ascending order and each once."""
    return ",".join(
        str(first) if first == last else f"{first}-{last}" for first, last in runs_of(sorted(set(seqs)))
    )


def spans_of(ranges: str) -> list[tuple[int, int]]:
    """Return the spans that such a text names, in ascending order."""
    spans = []
    for part in filter(None, ranges.split(",")):
        first, _, last = part.partition("-")
        spans.append((int(first), int(last or first)))
    return sorted(spans)


def seqs_of(ranges: str) -> Iterator[int]:
    """Give the numbers that such a text names, in ascending order."""
    for first, last in spans_of(ranges):
        yield from range(first, last + 1)
