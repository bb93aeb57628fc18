"""One write at a time, and nothing of it is lost."""

import os
import sys
import threading

import pytest

from workloads.worker.background_writer import NICENESS, BackgroundWriter


def test_writes_run_elsewhere_and_one_after_another():
    writer, seen = BackgroundWriter(), []
    for number in range(5):
        writer.start(lambda n=number: seen.append((n, threading.current_thread())))
        assert writer.wait() >= 0.0
    assert [number for number, _ in seen] == [0, 1, 2, 3, 4]
    assert threading.main_thread() not in {thread for _, thread in seen}


def test_two_at_once_are_refused():
    writer, go_on = BackgroundWriter(), threading.Event()
    writer.start(lambda: go_on.wait(20))
    assert writer.is_writing
    writer.poll()  # does not wait
    with pytest.raises(RuntimeError, match="under way"):
        writer.start(lambda: None)
    go_on.set()
    assert writer.wait() > 0.0
    assert not writer.is_writing
    assert writer.wait() == 0.0


def test_what_a_write_raises_comes_out_once():
    writer, error = BackgroundWriter(), OSError("broken")

    def fail():
        raise error

    writer.start(fail)
    with pytest.raises(OSError, match="broken") as info:
        writer.wait()
    assert info.value is error
    writer.poll()
    writer.start(lambda: None)
    writer.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority")
def test_the_write_yields_and_the_training_does_not():
    before = os.getpriority(os.PRIO_PROCESS, 0)
    writer, seen = BackgroundWriter(), []
    writer.start(lambda: seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
    writer.wait()
    assert seen == [max(before, NICENESS)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
