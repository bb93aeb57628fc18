"""Ray Train without the parts that a run of ours does not need.

A stock `TorchTrainer` starts seven processes and imports torch in four of them, two more than
train. Four things make the difference, all of them subclasses of Ray's own:

- a backend that knows no torch, so that driver and controller need none;
- the controller in the driver's own process (it shares the driver's fate anyway);
- no helper actors: no synchronization actor (it serves `ray.train.report`, which our loop never
  calls), no dataset manager (there are no Ray datasets), no placement group cleaner (the group
  belongs to the driver's Ray job and goes with it), a preemption watcher only where there is more
  than one node;
- a scaling policy that tells no coordinator what it wants: who gets room is decided by our
  controller, before the driver starts (docs/decisions/0006-elastic-workers.md).

Private hooks are used for that, so the version is checked: on any other release of Ray the
stock path is taken, which is slower and works the same. This is also the seam for a pool of
warm workers: `LeanWorkerGroup._create_workers` is where they would be handed out.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks import AcceleratorSetupCallback, BackendSetupCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup, worker_group
from ray.train.v2._internal.execution.worker_group import state as worker_group_state
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

TESTED_RAY = "2.60."


@dataclass
class RendezvousConfig(BackendConfig):
    """Tells the workers where rank 0 is; the process group is theirs to make."""

    @property
    def backend_cls(self) -> type[Backend]:
        """The class that does it."""
        return RendezvousBackend


class RendezvousBackend(Backend):
    """Sets torch's rendezvous variables on every worker, without importing torch."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Ask rank 0 for a free port, and tell everybody."""
        address, port = worker_group.execute_single(0, get_address_and_port)
        worker_group.execute(set_rendezvous, address, port)


def set_rendezvous(address: str, port: int) -> None:
    """Set the variables that torch's `env://` rendezvous reads; runs on each worker."""
    os.environ["MASTER_ADDR"] = address
    os.environ["MASTER_PORT"] = str(port)


class LeanWorkerGroup(WorkerGroup):
    """Ray's worker group, for a controller that is not an actor."""

    def _init_train_context_on_workers(
        self, workers: list[Any], sync_actor: Any, train_context_args: dict[str, list[Any]]
    ) -> None:
        tasks = [
            worker.actor.init_train_context.remote(
                train_run_context=self._train_run_context,
                distributed_context=worker.distributed_context,
                synchronization_actor=sync_actor,
                storage_context=self._storage_context,
                worker_callbacks=self._worker_callbacks_to_propagate,
                controller_actor=None,
                **{name: values[i] for name, values in train_context_args.items()},
            )
            for i, worker in enumerate(workers)
        ]
        ray.get(tasks)
        self._decorate_worker_log_file_paths(workers)

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> Any:
        # Any entry would start every worker through a shim that imports ray once more. What
        # Ray would put here are settings of the controller, which has them already.
        return custom_runtime_env


class LeanController(TrainController):
    """Ray's control loop and failure handling, with our worker group."""

    worker_group_cls = LeanWorkerGroup


class LeanScalingPolicy(FixedScalingPolicy):
    """As many workers as were admitted; the actor that would share out room is not started."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Ask nobody for room."""

    def _maybe_send_resource_request(self) -> None:
        """Remind nobody of it."""


class LeanTrainer(DataParallelTrainer):
    """A data-parallel trainer whose controller runs in the calling process."""

    def _create_default_callbacks(self) -> list[Any]:
        return [
            AcceleratorSetupCallback(self.backend_config, self.scaling_config),
            BackendSetupCallback(self.backend_config),
        ]

    def _initialize_and_run_controller(self, **controller_init_kwargs: Any) -> Any:
        controller_init_kwargs["scaling_policy"] = LeanScalingPolicy(self.scaling_config)

        async def run() -> Any:
            controller = LeanController(**controller_init_kwargs)
            await controller.run()
            return controller.get_result()

        with no_synchronization_actor():
            return asyncio.run(run())


class _NoActor:
    """Stands where a worker group expects its synchronization actor; nobody calls it."""

    @classmethod
    def options(cls, **_: Any) -> type["_NoActor"]:
        """Take an actor's options."""
        return cls

    @classmethod
    def remote(cls, **_: Any) -> str:
        """Start nothing; the worker group wants something to hold and to send to its workers."""
        return "no synchronization actor"


@contextlib.contextmanager
def no_synchronization_actor() -> Iterator[None]:
    """Have worker groups of this process start without their synchronization actor."""
    saved = worker_group.SynchronizationActor, worker_group_state._shutdown_sync_actor
    worker_group.SynchronizationActor = _NoActor
    worker_group_state._shutdown_sync_actor = lambda actor: None
    try:
        yield
    finally:
        worker_group.SynchronizationActor, worker_group_state._shutdown_sync_actor = saved


def build_trainer(
    train_loop: Callable[[dict[str, Any]], None],
    config: dict[str, Any],
    scaling: ScalingConfig,
    run: RunConfig,
    *,
    watch_preemption: bool,
) -> DataParallelTrainer:
    """Return a trainer for `train_loop`, lean where this release of Ray is known.

    Args:
        watch_preemption: Watch for nodes that are about to be taken away. Costs an actor.
    """
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", str(int(watch_preemption)))
    trainer = LeanTrainer if ray.__version__.startswith(TESTED_RAY) else DataParallelTrainer
    return trainer(
        train_loop,
        train_loop_config=config,
        backend_config=RendezvousConfig(),
        scaling_config=scaling,
        run_config=run,
    )
