"""Work in several processes: every task once, errors told, a lost process met."""

import os
import signal

import pytest

from workloads.data.errors import DataError
from workloads.data.processes import in_processes


def square(task, tick):
    tick()
    return task * task


def fail_at_seven(task, tick):
    tick()
    if task == 7:
        raise DataError("seven", "not seven")
    return task


def holds_interrupts(task, tick):
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def die(task, tick):
    os.kill(os.getpid(), signal.SIGKILL)


def test_every_task_is_done_once_and_counted():
    done = []
    tasks = list(range(40))
    for workers in (1, 2):
        found = sorted(in_processes(square, tasks, workers=workers, progress=done.append))
        assert found == [task * task for task in tasks]
        assert done[-1] == 40


def test_an_error_ends_the_work_and_keeps_its_words():
    with pytest.raises(DataError, match=r"seven \(not seven\)"):
        list(in_processes(fail_at_seven, list(range(50)), workers=2))


def test_a_process_that_is_killed_is_met_with_advice():
    with pytest.raises(DataError, match=r"ended from outside.*--workers"):
        list(in_processes(die, [1, 2, 3], workers=2))


def test_processes_are_begun_without_ctrl_c_and_the_parent_keeps_it():
    assert list(in_processes(holds_interrupts, [1, 2], workers=2)) == [True, True]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
