"""From jobs as the store has them to trainings as comparisons want them."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.jobs.job import TAG_CHECKPOINT, TAG_VALUES, Job
from orchestrator.results.comparison import Scalar, Training

_EVAL = "eval/"
_EVALUATED_AS = ("split", "crops", "precision", "average")


def of_job(job: Job, evaluation: Job | None = None, **more: Any) -> Training:
    """Return the training of a job of kind `train`.

    Args:
        evaluation: A finished evaluation of it.
        more: Further fields, such as the cell.
    """
    spec = job.raw_spec
    config = leaves(spec["config"])
    facts = {**_facts(job, workers=job.num_workers), **_evaluation_facts(evaluation, job)}
    return Training(
        job_id=job.job_id,
        run_id=job.run_id,
        experiment_id=job.experiment_id,
        kind="train",
        state=job.state.value,
        recipe=str(spec["recipe"]),
        seed=job.seed if job.seed is not None else spec["config"].get("seed"),
        config=config,
        metrics=job.metrics,
        result=_scalars(job.result),
        evaluation=_numbers(evaluation),
        evaluation_job=evaluation.job_id if evaluation is not None else "",
        facts=facts,
        published=_published(spec, config),
        commit=_commit(job),
        reason=job.reason,
        **more,
    )


def of_trial(trial: Job, sweep: Job, **more: Any) -> Training:
    """Return the training of a sweep's trial, which has its config from the sweep."""
    spec = sweep.raw_spec
    config = leaves(_overlaid(spec["config"]["base"], trial.read_json(TAG_VALUES)))
    seed = config.get("seed", 0)
    return Training(
        job_id=trial.job_id,
        run_id=trial.run_id,
        experiment_id=trial.experiment_id,
        kind="trial",
        state=trial.state.value,
        recipe=str(spec["recipe"]),
        seed=seed if isinstance(seed, int) else None,
        cell=trial.cell,
        config=config,
        metrics=trial.metrics,
        result=_scalars(trial.result),
        facts=_facts(sweep, workers=spec["config"].get("trial_workers", 1)),
        commit=_commit(sweep),
        reason=trial.reason,
        **more,
    )


def of_evaluation(job: Job) -> Training:
    """Return an evaluation of weights that no job of the cluster trained: it stands alone."""
    spec = job.raw_spec
    config = {k: v for k, v in leaves(spec["config"]).items() if k != "weights"}
    return Training(
        job_id=job.job_id,
        run_id=job.run_id,
        experiment_id=job.experiment_id,
        kind="eval",
        state=job.state.value,
        recipe=str(spec["recipe"]),
        seed=None,
        config=config,
        result=_scalars(job.result),
        evaluation=_numbers(job),
        evaluation_job=job.job_id,
        facts={**_facts(job, workers=None), **_data_digest(job)},
        commit=_commit(job),
        reason=job.reason,
    )


def evaluated_as(evaluation: Job) -> tuple[str, ...]:
    """Return how something was evaluated: which checkpoint, which crops; on which images."""
    config = evaluation.raw_spec["config"]
    which = evaluation.tags.get(TAG_CHECKPOINT, "").rpartition(":")[2]
    asked = (str(config.get(key, "")) for key in _EVALUATED_AS)
    return (which, *asked, json.dumps([config.get("data"), config.get("images")], sort_keys=True))


def leaves(document: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return the leaf values under dotted keys; lists as text, as in MLflow's parameters.

    As `workloads.config.validate.flatten` does, without importing pydantic.
    """
    return dict(_leaves("", document))


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Scalar]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), inner)
    else:
        yield prefix, json.dumps(value) if isinstance(value, list | tuple) else value


def _overlaid(base: Mapping[str, Any], values: Mapping[str, Scalar]) -> dict[str, Any]:
    """Return a config with what a search chose; a choice takes the place of its section.

    Keys that lie in a section come after the choice of it.
    """
    document: dict[str, Any] = json.loads(json.dumps(base))
    for path in sorted(values, key=lambda key: key.count(".")):
        *sections, last = path.removesuffix(".name").split(".")
        node = document
        for section in sections:
            inner = node.get(section)
            if isinstance(inner, str):  # a bare name is short for {name: ...}
                inner = {"name": inner}
            node[section] = node = dict(inner) if isinstance(inner, Mapping) else {}
        is_choice = path.endswith(".name") or isinstance(node.get(last), Mapping)
        node[last] = {"name": values[path]} if is_choice else values[path]
    return document


def _facts(job: Job, *, workers: int | None) -> dict[str, Scalar]:
    resources = job.raw_spec["resources"]
    facts: dict[str, Scalar] = {"commit": _commit_text(job)} if _commit(job) else {}
    if workers is None:
        return facts
    return facts | {
        "workers": workers,
        "CPUs per worker": resources.get("cpus_per_worker", 1),
        "GPUs per worker": resources.get("gpus_per_worker", 0),
    }


def _evaluation_facts(evaluation: Job | None, trained: Job) -> dict[str, Scalar]:
    """Return how it was evaluated; what is as in the training is its config's to tell."""
    if evaluation is None:
        return {}
    config, of_training = evaluation.raw_spec["config"], trained.raw_spec["config"]
    which = evaluation.tags.get(TAG_CHECKPOINT, "").rpartition(":")[2]
    facts: dict[str, Scalar] = {"evaluated checkpoint": which}
    facts |= {f"evaluation {key}": config.get(key) for key in _EVALUATED_AS if key in config}
    for key in ("data", "images"):
        same = config.get(key) == of_training.get(key)
        facts[f"evaluation {key}"] = "as in training" if same else _brief(config.get(key))
    return facts | _data_digest(evaluation)


def _data_digest(evaluation: Job) -> dict[str, Scalar]:
    digest = evaluation.result.get("data_digest")
    return {"data digest": str(digest)[:16]} if digest else {}


def _brief(value: Any) -> str:
    """Return a section of a config in a few words."""
    if not isinstance(value, Mapping):
        return str(value)
    shown = [value[key] for key in ("name", "path", "size", "resize") if key in value]
    return " ".join(map(str, shown))


def _numbers(evaluation: Job | None) -> dict[str, float]:
    metrics = evaluation.metrics if evaluation is not None else {}
    return {k.removeprefix(_EVAL): v for k, v in metrics.items() if k.startswith(_EVAL)}


def _scalars(result: Mapping[str, Any]) -> dict[str, Scalar]:
    return {k: v for k, v in result.items() if v is None or isinstance(v, str | int | float)}


def _commit(job: Job) -> str:
    return job.tags.get("mlflow.source.git.commit", "")


def _commit_text(job: Job) -> str:
    dirty = job.tags.get("mlflow.source.git.dirty") == "true"
    return _commit(job)[:12] + (" with changes" if dirty else "")


def _published(spec: Mapping[str, Any], config: Mapping[str, Scalar]) -> float | None:
    """Return the published top-1, in percent, if the job trained what was published."""
    number = (spec.get("published") or {}).get("top1")
    if number is None:
        return None
    from orchestrator.results.published_rows import is_published

    return float(number) if is_published(str(spec["recipe"]), config) else None
