"""Whose lines are whose in a log that jobs share."""

import pytest

from orchestrator.jobs.logs import LogSlice, begin_line, end_line, mark, slice_log

SHARED = "\n".join(
    [
        "the driver starts",
        begin_line("a", 1),
        mark(0, "of a"),
        mark(0, begin_line("b", 1)),  # a training that prints such a line begins nothing
        end_line("a", 1),
        "between",
        begin_line("b", 1),
        "of b",
        end_line("b", 1),
        begin_line("b", 2),
        "of b again, cut",
    ]
)


@pytest.mark.parametrize(
    ("job", "attempt", "is_own", "expected"),
    [
        ("a", 1, True, f"the driver starts\n[rank 0] of a\n[rank 0] {begin_line('b', 1)}\n"),
        ("b", 1, False, "of b\n"),
        ("b", 2, False, "of b again, cut"),
        ("c", 1, False, ""),
    ],
)
def test_a_slice_does_not_depend_on_how_the_log_comes(job, attempt, is_own, expected):
    assert slice_log(SHARED, job, attempt, is_own=is_own) == expected
    piecewise = LogSlice(job, attempt, is_own=is_own)
    found = "".join(piecewise.feed(character) for character in SHARED) + piecewise.close()
    assert found == expected


def test_a_log_without_sections_is_of_one_job():
    assert slice_log("one\ntwo", "a", 1, is_own=True) == "one\ntwo"
    assert slice_log("one\ntwo", "b", 1, is_own=False) == ""


def test_it_is_known_when_a_job_is_over():
    wanted = LogSlice("a", 1, is_own=True)
    wanted.feed(SHARED[: SHARED.index("=== end")])
    assert not wanted.has_ended
    wanted.feed(SHARED[SHARED.index("=== end") :])
    assert wanted.has_ended


def test_what_was_sliced_stays_as_it_is():
    once = slice_log(SHARED, "b", 1, is_own=False)
    assert slice_log(once, "b", 1, is_own=True) == once
