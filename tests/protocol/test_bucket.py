"""How much may be done in a second, on average and at once."""

from __future__ import annotations

from ws_manager.protocol.bucket import Bucket, Buckets


class TestBucket:
    def test_holds_a_burst_and_no_more(self) -> None:
        bucket = Bucket(10, 3, 0.0)
        assert [bucket.take(1, 0.0) for _ in range(4)] == [True, True, True, False]

    def test_fills_with_time_up_to_the_burst(self) -> None:
        bucket = Bucket(10, 3, 0.0)
        bucket.charge(3, 0.0)
        assert bucket.left(0.2) == 2
        assert bucket.left(100.0) == 3

    def test_what_is_refused_costs_nothing(self) -> None:
        bucket = Bucket(10, 10, 0.0)
        bucket.take(5, 0.0)
        assert not bucket.take(6, 0.0)
        assert bucket.left(0.0) == 5

    def test_a_full_one_gives_more_than_it_holds_once_and_is_paid_for_afterwards(self) -> None:
        bucket = Bucket(10, 10, 0.0)
        assert bucket.take(25, 0.0)
        assert not bucket.take(1, 1.5)
        assert not bucket.take(25, 2.4)
        assert bucket.take(25, 2.5)

    def test_charge_says_how_long_something_is_owed(self) -> None:
        bucket = Bucket(10, 10, 0.0)
        assert bucket.charge(10, 0.0) == 0
        assert bucket.charge(5, 0.0) == 0.5
        assert bucket.charge(5, 0.5) == 0.5

    def test_wait_says_when_so_much_may_be_done(self) -> None:
        bucket = Bucket(10, 10, 0.0)
        assert bucket.wait(10, 0.0) == 0
        bucket.charge(10, 0.0)
        assert bucket.wait(1, 0.0) == 0.1
        # More than it holds is possible when it is full.
        assert bucket.wait(1000, 0.0) == 1

    def test_a_clock_that_goes_back_takes_nothing_away(self) -> None:
        bucket = Bucket(10, 10, 100.0)
        bucket.charge(5, 100.0)
        assert bucket.left(50.0) == 5


class TestBuckets:
    def test_each_key_has_its_own(self) -> None:
        buckets = Buckets(1, 1)
        assert buckets.of("a", 0.0).take(1, 0.0)
        assert not buckets.of("a", 0.0).take(1, 0.0)
        assert buckets.of("b", 0.0).take(1, 0.0)

    def test_of_too_many_the_one_that_was_not_used_for_the_longest_time_is_forgotten(self) -> None:
        buckets = Buckets(1, 1, most=2)
        for key in ("a", "b"):
            buckets.of(key, 0.0).charge(1, 0.0)
        buckets.of("a", 0.0)
        buckets.of("c", 0.0)
        assert len(buckets) == 2
        assert buckets.of("a", 0.0).left(0.0) == 0
        assert buckets.of("b", 0.0).left(0.0) == 1
