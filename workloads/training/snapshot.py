"""A run to and from the plain data of a checkpoint."""

import hashlib
from typing import Any

import torch

from workloads.training.run import Run
from workloads.training.state import TrainState
from workloads.worker import distributed
from workloads.worker.failures import CheckpointError
from workloads.worker.seeding import rng_state, seed_everything, set_rng_state

_MOST_LINES = 8


def take_snapshot(run: Run) -> dict[str, Any]:
    """Return all that resume needs; every rank calls it, each contributes its own part."""
    own = {"rng": rng_state(run.context.device), "meters": run.meters.values()}
    average = {} if run.average is None else {"ema": run.average.state_dict()}
    return {
        "step": run.state.global_step,
        "train": run.state.to_dict(),
        "model": run.model.state_dict(),
        **average,
        "optimizer": run.optimizer.state_dict(),
        "groups": _groups(run),
        "loss_scale": run.loss_scale.state_dict(),
        "ranks": distributed.gather_objects(own),
        "identity": _identity(run),
        "config": run.config.model_dump(mode="json"),
        "surroundings": _surroundings(run),
    }


def restore(run: Run, saved: dict[str, Any]) -> None:
    """Put a run where `take_snapshot` found it, except for random numbers (`restore_rank`)."""
    run.model.load_state_dict(saved["model"])
    if run.average is not None:
        run.average.load_state_dict(saved["ema"])
    _load_optimizer(run.optimizer, saved["optimizer"])
    run.loss_scale.load_state_dict(saved.get("loss_scale", {}))
    run.state = TrainState.from_dict(saved["train"])
    for name, now in _surroundings(run).items():
        before = saved["surroundings"].get(name)
        if before != now:
            run.say(
                f"warning: {name} was {before} when the checkpoint was saved and is {now} now; "
                "the numbers will not be the same to the last bit"
            )


def restore_rank(run: Run, saved: dict[str, Any]) -> None:
    """Put this rank's random numbers and sums back; the last thing before training goes on."""
    ranks, context = saved["ranks"], run.context
    if len(ranks) == context.world_size:
        set_rng_state(ranks[context.rank]["rng"], context.device)
        run.meters.set(ranks[context.rank]["meters"])
        return
    # Another number of ranks: the sums go to rank 0, random numbers start anew from the step.
    seed_everything(run.config.seed + run.state.global_step, context.rank)
    if context.rank == 0:
        *sums, seconds = [sum(values) for values in zip(*(r["meters"] for r in ranks), strict=True)]
        # The epoch's time is the mean over ranks, and the others begin with none.
        run.meters.set([*sums, seconds / len(ranks) * context.world_size])


def _identity(run: Run) -> dict[str, Any]:
    """What a checkpoint and a run must share, or resuming would be nonsense."""
    return {
        "optimizer": run.config.optim.name,
        "input channels": run.data.in_channels,
        "classes": list(run.data.classes),
        # Another order of a matrix in a vector fits by shape, not by meaning.
        "vector order": None if run.pooling is None else run.pooling.vector_order,
        "global batch size": run.config.global_batch_size,
        "steps per epoch": run.steps_per_epoch,
        "moving average": run.average is not None,
    }


def _identity_of(saved: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's identity, with what went without saying when it was written."""
    unsaid = {
        "vector order": now["vector order"] and "upper_rows",
        "moving average": "ema" in saved,
    }
    return {**unsaid, **saved["identity"]}


def _surroundings(run: Run) -> dict[str, Any]:
    """What changes numbers but not their meaning."""
    config_json = run.config.model_dump_json()
    return {
        "config": hashlib.sha256(config_json.encode()).hexdigest()[:12],
        "data": str(run.data.digest)[:12],
        "number of workers": run.context.world_size,
        "threads per worker": torch.get_num_threads(),
        "device": run.context.device.type,
        "torch": str(torch.__version__),
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load what the optimizer remembers; its settings stay those of this job's config."""
    settings = [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(saved)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
        for weight in group["params"]:
            memory = optimizer.state.get(weight, {})
            for name, value in memory.items():
                if torch.is_tensor(value) and value.shape == weight.shape:
                    # The fused kernels go through memory as it lies.
                    memory[name] = torch.empty_like(weight).copy_(value)


def _shapes(weights: dict[str, Any]) -> dict[str, list[int]]:
    return {f"network's {name}": list(tensor.shape) for name, tensor in weights.items()}


def _groups(run: Run) -> list[list[str]]:
    """Return the names of the weights as the optimizer has them."""
    names = {weight: name for name, weight in run.model.named_parameters()}
    return [[names[weight] for weight in group["params"]] for group in run.optimizer.param_groups]


def refuse_another_job(run: Run, saved: dict[str, Any]) -> None:
    """Raise CheckpointError if it is of another network, optimizer, other classes or steps."""
    now = {**_identity(run), **_shapes(run.model.state_dict())}
    before = {**_identity_of(saved, now), **_shapes(saved["model"])}
    differing = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    if differing:
        lines = [f"  {n}: checkpoint {before.get(n)!r}, this job {now.get(n)!r}" for n in differing]
        if len(lines) > _MOST_LINES:
            lines[_MOST_LINES:] = [f"  and {len(lines) - _MOST_LINES} more"]
        folder = run.context.loaded_from
        raise CheckpointError(
            f"the checkpoint{f' {folder}' if folder else ''} does not fit this job:\n"
            + "\n".join(lines)
            + "\nStart a new job, or bring the data and config back to what they were."
        )
    unknown = saved["train"].keys() - run.state.to_dict().keys()
    if unknown:
        raise CheckpointError(
            f"the checkpoint was saved by a newer version: {', '.join(sorted(unknown))} of its "
            "state mean nothing to this one.\nStart a new job, or resume with the version that "
            "saved it."
        )
    names = [name for name, _ in run.model.named_parameters()]
    if [name for name in saved["model"] if name in set(names)] != names:
        # By number the optimizer would give a weight the momentum of another, of any shape.
        raise CheckpointError(
            "the checkpoint has the network's weights in another order, and the optimizer knows "
            "them by their order.\nStart a new job, or resume with the version that saved it."
        )
    if saved.get("groups", [names]) != _groups(run):
        raise CheckpointError(
            "the checkpoint's optimizer has the weights in other groups: optim.lr_factors or what "
            "weight decay acts on differ.\nStart a new job, or bring optim back to what it was."
        )
