"""Elastic worker counts on a real cluster of two CPUs."""

import pytest

from tests.live import Live, kill, wait_for
from workloads.config.rates import learning_rate
from workloads.config.train import TrainConfig

_EPOCHS = 40

pytestmark = pytest.mark.integration


def test_a_job_starts_with_what_is_free_and_has_more_in_its_next_attempt(live: Live) -> None:
    before = live.submit("epochs=2000", "--workers", "1", "--name", "elastic-before")
    wait_for("the first job", lambda: live.store.find(before).attempt)
    job_id = live.submit(f"epochs={_EPOCHS}", "--workers", "1:2", "--name", "elastic-job")
    started = wait_for("an epoch", lambda: (job := live.store.find(job_id)).epoch and job)
    assert (started.attempt, started.num_workers) == (1, 1)
    assert "1 to 2 workers, 1 now" in live.gcpctl("status", job_id).stdout

    live.gcpctl("stop", before)
    live.wait_final(before)
    driver = live.driver(job_id)
    assert driver is not None
    kill(driver)
    job = live.wait_final(job_id)

    assert (job.state.value, job.attempt, job.num_workers) == ("FINISHED", 2, 2)
    config = TrainConfig.model_validate(job.spec.config)
    steps = job.result["global_step"] // config.epochs
    assert steps == 1438 // config.global_batch_size
    epochs = range(1, _EPOCHS + 1)
    samples = [(epoch, epoch * steps * config.global_batch_size) for epoch in epochs]
    assert live.store.metric_history(job.run_id, "progress/samples") == samples
    rates = dict(live.store.metric_history(job.run_id, "optim/lr"))
    wanted = {epoch: learning_rate(config, steps, epoch * steps - 1) for epoch in epochs}
    assert rates == pytest.approx(wanted)
