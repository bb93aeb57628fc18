"""What follows the end of an attempt."""

import pytest

from orchestrator.controller.retry import Close, Retry, backoff_s, judge


def decide(outcome=None, *, used=0, allowed=3, stop=False, message="driver exit 137"):
    return judge(outcome or {}, message, retries_used=used, max_retries=allowed, stop=stop)


def test_a_killed_driver_is_retried_at_once():
    assert decide() == Retry(delay_s=1, reason="driver exit 137")


def test_retries_are_bounded():
    verdict = decide(used=3)
    assert isinstance(verdict, Close)
    assert not verdict.stopped
    assert "after 3 retries without progress" in verdict.reason


@pytest.mark.parametrize("kind", ["user", "storage"])
def test_what_a_retry_would_meet_again_is_not_retried(kind):
    verdict = decide({"outcome": "failed", "class": kind, "reason": "because"})
    assert isinstance(verdict, Close)
    assert not verdict.stopped
    assert "because" in verdict.reason


def test_a_fenced_attempt_is_followed_by_another():
    verdict = decide({"outcome": "failed", "class": "fenced", "reason": "superseded"})
    assert isinstance(verdict, Retry)


def test_a_stop_wins_over_a_retry():
    assert decide(stop=True) == Close(stopped=True, reason="stopped on request")


def test_an_error_that_comes_before_the_stop_is_still_an_error():
    verdict = decide({"outcome": "failed", "class": "user", "reason": "bad shape"}, stop=True)
    assert verdict == Close(stopped=False, reason="bad shape")


def test_backoff_grows_to_six_minutes():
    assert [backoff_s(n) for n in (1, 2, 3, 4, 9, 50)] == [1, 10, 20, 40, 360, 360]
