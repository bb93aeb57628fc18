"""Fixtures of the tests that run against a real cluster."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.live import Live

# A busy machine is no failure: examples are judged by what they find, not by their time.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A shell that starts us in the background has it ignored, and the programs that we start with us.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def live() -> Iterator[Live]:
    """One real cluster for all tests that ask for it, in a home of its own."""
    home = Path(tempfile.mkdtemp(prefix="gcpctl-test-")) / "home"
    before = {key: os.environ.get(key) for key in ("GCPCTL_HOME", "GCPCTL_PROFILE")}
    os.environ["GCPCTL_HOME"] = str(home)
    os.environ.pop("GCPCTL_PROFILE", None)
    cluster = Live(home)
    try:
        cluster.gcpctl("cluster", "up", "--cpus", "2")
        yield cluster
    finally:
        cluster.gcpctl("cluster", "down")
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value
        shutil.rmtree(home.parent, ignore_errors=True)
