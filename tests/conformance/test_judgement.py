"""What a run of the conformance suite is accepted with, and what it is not."""

from __future__ import annotations

import pytest

from tests.conformance.run import CASES, Cases, cases_in, complaints


def results(**changed: str) -> Cases:
    """Those of a run in which all is well, but for the first case."""
    cases = {f"1.{number}": {"behavior": "OK", "behaviorClose": "OK"} for number in range(CASES)}
    cases["1.0"].update(changed)
    return cases


@pytest.mark.parametrize("behavior", ["OK", "NON-STRICT", "INFORMATIONAL"])
def test_a_case_that_holds_is_no_complaint(behavior: str) -> None:
    assert complaints(results(behavior=behavior)) == []


@pytest.mark.parametrize("behavior", ["FAILED", "ERROR", "UNIMPLEMENTED"])
def test_a_case_that_fails_is_named(behavior: str) -> None:
    (complaint,) = complaints(results(behavior=behavior))
    assert complaint.startswith("case 1.0: ")
    assert behavior in complaint


@pytest.mark.parametrize("close", ["FAILED", "WRONG CODE", "UNCLEAN", "FAILED BY CLIENT"])
def test_so_is_one_that_only_closes_wrongly(close: str) -> None:
    (complaint,) = complaints(results(behaviorClose=close))
    assert complaint.startswith("case 1.0: ")
    assert close in complaint


def test_no_results_are_no_success() -> None:
    assert complaints({}) == [f"0 cases were run, of {CASES}"]


def test_nor_are_fewer_cases_than_there_are() -> None:
    fewer = results()
    del fewer["1.7"]
    assert complaints(fewer) == [f"{CASES - 1} cases were run, of {CASES}"]


def test_a_server_that_did_not_say_its_name_each_time_is_one_server() -> None:
    cases = results()
    assert cases_in({"Python": {"1.0": cases.pop("1.0")}, "unknown": cases}) == results()
