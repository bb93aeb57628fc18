"""A checkpoint that somebody copied in by hand from another job."""

import contextlib
import shutil

import pytest

from workloads.training.loop import train
from workloads.worker.failures import CheckpointError
from workloads.worker.folder_context import FolderContext
from workloads.worker.paths import JobPaths

WIDER = {
    "backbone": {"name": "small_resnet", "width": 8, "blocks": [1]},
    "head": {"reduced_channels": 4},
}


@pytest.fixture
def jobs(tiny, tmp_path):
    """A job of two epochs, and one of three with a wider network."""
    own, other = JobPaths(tmp_path / "own"), JobPaths(tmp_path / "other")
    train(tiny(), FolderContext(own.root, asynchronous=True))
    train(tiny(epochs=3, model=WIDER), FolderContext(other.root, asynchronous=True))
    return own, other


def test_it_is_refused_by_name_and_stays_where_it_is(jobs, tiny):
    own, other = jobs
    foreign = own.checkpoints / "step-0000000033"
    shutil.copytree(other.checkpoints / foreign.name, foreign)
    context = FolderContext(own.root, attempt=2, asynchronous=True)
    with contextlib.closing(context), pytest.raises(CheckpointError) as info:
        train(tiny(), context)
    assert f"{foreign} does not fit this job" in str(info.value)
    assert "checkpoint [8, " in str(info.value)  # the wider layer beside ours
    assert "this job [4, " in str(info.value)
    names = {path.name for path in own.checkpoints.glob("step-*")}
    assert names == {"step-0000000011", "step-0000000022", "step-0000000033"}


def test_under_another_step_it_is_damaged_and_the_one_before_is_used(jobs, tiny, capsys):
    own, other = jobs
    shutil.copytree(other.checkpoints / "step-0000000033", own.checkpoints / "step-0000000044")
    context = FolderContext(own.root, attempt=2, asynchronous=True)
    result = train(tiny(), context)
    assert result.global_step == 22
    assert context.loaded_from == own.checkpoints / "step-0000000022"
    assert "MANIFEST.json is of step 33" in capsys.readouterr().out
    assert list(own.checkpoints.glob("step-0000000044.bad-2-1"))
