"""The private hooks of Ray Train that `drivers/ray_train.py` builds on, as they are in 2.60."""

import inspect

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.backend import Backend
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy, ResizeDecision
from ray.train.v2._internal.execution.worker_group import WorkerGroup, worker_group
from ray.train.v2._internal.execution.worker_group import state as worker_group_state
from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from orchestrator.drivers import ray_train
from orchestrator.drivers.ray_train import (
    LeanController,
    LeanScalingPolicy,
    LeanTrainer,
    LeanWorkerGroup,
)


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_release_is_the_tested_one():
    assert ray.__version__.startswith(ray_train.TESTED_RAY)


def test_the_hooks_have_the_form_we_override():
    for name in ("_init_train_context_on_workers", "_get_worker_runtime_env"):
        theirs, ours = getattr(WorkerGroup, name), getattr(LeanWorkerGroup, name)
        assert parameters(theirs) == parameters(ours), name
    assert TrainController.worker_group_cls is WorkerGroup
    assert LeanController.worker_group_cls is LeanWorkerGroup
    assert inspect.iscoroutinefunction(TrainController.run)
    assert parameters(TrainController.get_result) == ["self"]
    for name in ("_create_default_callbacks", "_initialize_and_run_controller"):
        assert parameters(getattr(DataParallelTrainer, name)) == parameters(
            getattr(LeanTrainer, name)
        ), name
    assert parameters(Backend.on_start) == ["self", "worker_group", "backend_config"]


def test_the_scaling_policy_wants_what_was_admitted_and_asks_nobody():
    for name in ("after_controller_start", "_maybe_send_resource_request"):
        theirs, ours = getattr(FixedScalingPolicy, name), getattr(LeanScalingPolicy, name)
        assert parameters(theirs) == parameters(ours), name
    wanted = parameters(TrainController.__init__)
    assert "scaling_policy" in wanted
    policy = LeanScalingPolicy(ScalingConfig(num_workers=3, resources_per_worker={"CPU": 2}))
    policy.after_controller_start(None)  # a coordinator would be an actor, and Ray is not up
    decision = policy.make_decision_for_non_running_worker_group()
    assert decision == ResizeDecision(num_workers=3, resources_per_worker={"CPU": 2})
    policy.before_controller_abort()
    assert not ray.is_initialized()


def test_the_synchronization_actor_is_left_out_only_while_asked():
    names = worker_group.SynchronizationActor, worker_group_state._shutdown_sync_actor
    with ray_train.no_synchronization_actor():
        assert worker_group.SynchronizationActor.options(label_selector={}).remote()
        worker_group_state._shutdown_sync_actor(None)
    assert (worker_group.SynchronizationActor, worker_group_state._shutdown_sync_actor) == names


def test_a_worker_takes_the_context_that_we_send():
    wanted = {
        "train_run_context", "distributed_context", "synchronization_actor", "storage_context",
        "worker_callbacks", "controller_actor",
    }  # fmt: skip
    assert wanted <= set(parameters(RayTrainWorker.init_train_context))


def test_any_other_release_takes_the_stock_path(monkeypatch, tmp_path):
    arguments = (
        lambda config: None, {}, ScalingConfig(num_workers=1),
        RunConfig(name="x", storage_path=str(tmp_path)),
    )  # fmt: skip
    lean = ray_train.build_trainer(*arguments, watch_preemption=False)
    assert type(lean) is LeanTrainer
    monkeypatch.setattr(ray, "__version__", "2.61.0")
    stock = ray_train.build_trainer(*arguments, watch_preemption=False)
    assert type(stock) is DataParallelTrainer


def test_every_worker_is_told_where_rank_0_is(monkeypatch):
    told = []

    class Group:
        def execute_single(self, index, function):
            assert index == 0
            return ("127.0.0.1", 1234)

        def execute(self, function, *arguments):
            told.append((function, arguments))

    ray_train.RendezvousBackend().on_start(Group(), ray_train.RendezvousConfig())
    assert told == [(ray_train.set_rendezvous, ("127.0.0.1", 1234))]
    monkeypatch.setenv("MASTER_ADDR", "")
    monkeypatch.setenv("MASTER_PORT", "")
    ray_train.set_rendezvous("127.0.0.1", 1234)
    import os

    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("127.0.0.1", "1234")
