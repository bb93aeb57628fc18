"""Trainings made by hand, for tests of what compares them."""

from typing import Any

from orchestrator.results.comparison import Training


def training(
    pooling: str, seed: int | None = 0, top1: float | None = 90.0, **more: Any
) -> Training:
    """Return a finished training of a pooling; evaluated, unless `top1` is None."""
    job_id = more.pop("job_id", f"{pooling}-s{seed}")
    config = {"seed": seed, "model.head.pooling.name": pooling, "optim.lr": 0.1}
    fields: dict[str, Any] = {
        "run_id": f"run-{job_id}",
        "experiment_id": "1",
        "kind": "train",
        "state": "FINISHED",
        "recipe": "digits",
        "seed": seed,
        "config": config | more.pop("config", {}),
        "metrics": {"val/top1": 50.0},
        "evaluation": {} if top1 is None else {"top1": top1},
        "facts": {"commit": "abc", "workers": 1},
    }
    return Training(job_id=job_id, **fields | more)
