"""Which checkpoints stay: the newest, and the best by their validation results."""

import json
import math

import pytest

from workloads.worker.checkpoint_reader import manifests, open_checkpoint
from workloads.worker.checkpoints import CheckpointStore
from workloads.worker.manifest import _digest


@pytest.fixture
def keep(paths, make_state):
    """Save steps 1, 2, ... with these scores; return the steps that stay."""

    def run(scores, newest=2, best=1):
        store = CheckpointStore(paths, 1, newest, best)
        store.claim()
        leader = -math.inf
        for step, score in enumerate(scores, start=1):
            is_best = score is not None and score > leader
            leader = score if is_best else leader
            store.save(make_state(step), step=step, is_best=is_best, score=score)
        return store.steps()

    return run


def test_the_newest_and_the_best_stay(paths, make_store, make_state):
    store = make_store(keep=3)
    for step in range(10, 110, 10):
        store.save(make_state(step), step=step, is_best=step in (10, 30))
    assert store.steps() == [30, 80, 90, 100]
    assert open_checkpoint(paths.root, "best")["step"] == 30


def test_as_many_of_the_best_as_asked_for(keep, paths):
    assert keep([5.0, 9.0, 8.0, 7.0, 1.0, 2.0], best=3) == [2, 3, 4, 5, 6]
    assert open_checkpoint(paths.root, "best")["step"] == 2


def test_of_equal_results_the_earlier_stays(keep):
    assert keep([5.0, 7.0, 7.0, 7.0, 1.0, 1.0, 1.0], best=2) == [2, 3, 6, 7]


def test_saves_without_a_validation_are_not_ranked(keep):
    assert keep([None, 3.0, None, 4.0, None, None, None], best=2) == [2, 4, 6, 7]


def test_a_result_that_is_no_number_is_not_ranked(keep, paths):
    assert keep([math.nan, 3.0, math.nan, 2.0, 1.0, 0.0], best=2) == [2, 4, 5, 6]
    for text in paths.checkpoints.glob("*/MANIFEST.json"):
        assert "NaN" not in text.read_text()


def test_the_best_among_the_newest_takes_no_other_place(keep):
    assert keep([1.0, 2.0, 3.0, 4.0], best=2) == [3, 4]


def test_manifests_from_before_there_were_scores_stay_readable(paths, make_state):
    store = CheckpointStore(paths, 1, 2, 2)
    store.claim()
    for step in (1, 2, 3):
        store.save(make_state(step), step=step, is_best=step == 1)
        file = paths.checkpoints / f"step-{step:010d}" / "MANIFEST.json"
        body = json.loads(file.read_bytes())
        del body["manifest_sha256"], body["score"], body["classes"]
        file.write_text(json.dumps({**body, "manifest_sha256": _digest(body)}))
    assert [m.score for m in manifests(paths.checkpoints)] == [None, None, None]
    again = CheckpointStore(paths, 2, 2, 2)
    again.claim()
    assert again.load_latest()["step"] == 3
    for step, score in ((4, 5.0), (5, 4.0), (6, 1.0), (7, 1.0)):
        again.save(make_state(step), step=step, is_best=False, score=score)
    assert again.steps() == [1, 4, 6, 7]  # the one that was the best, then by result
