"""From names to trainings, through the real store and a server that keeps runs in memory."""

import json
import re
from typing import Any

import pytest

from orchestrator.jobs.errors import ConflictError, NotFoundError
from orchestrator.jobs.job import (
    TAG_BASELINE_CELL,
    TAG_CELL,
    TAG_CHECKPOINT,
    TAG_EVALUATED,
    TAG_GROUP,
    TAG_JOB_ID,
    TAG_KIND,
    TAG_RESULT,
    TAG_RUN_NAME,
    TAG_SEED,
    TAG_SPEC,
    TAG_VALUES,
    member_tag,
)
from orchestrator.jobs.store import JobStore
from orchestrator.results.collect import collect, select
from orchestrator.results.compare import compare

_TERM = re.compile(r"(tags|attributes)\.`?([\w.]+)`? (=|!=|LIKE|>=) '?([^']*)'?")


class Server:
    """Answers what the store asks MLflow; knows the filters that are used here."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.experiments = {"1": "digits", "2": "birds"}
        self.searches: list[str] = []

    def add(
        self,
        job_id: str,
        kind: str,
        spec: dict[str, Any],
        tags: dict[str, str] | None = None,
        metrics: dict[str, float] | None = None,
        status: str = "FINISHED",
        experiment: str = "1",
    ) -> None:
        tags = {TAG_KIND: kind, TAG_RUN_NAME: job_id} | (tags or {})
        if kind != "trial":
            resources = {"num_workers": 1, "cpus_per_worker": 1, "gpus_per_worker": 0}
            spec = {"recipe": "digits_resnet_isqrt", "resources": resources} | spec
            tags |= {TAG_JOB_ID: job_id, TAG_SPEC: json.dumps(spec)}
        info = {"run_id": f"run-{job_id}", "experiment_id": experiment, "status": status}
        info |= {"start_time": len(self.runs), "end_time": 0, "artifact_uri": ""}
        data = {
            "tags": [{"key": k, "value": v} for k, v in tags.items()],
            "metrics": [{"key": k, "value": v} for k, v in (metrics or {}).items()],
        }
        self.runs.append({"info": info, "data": data})

    def call(self, method: str, path: str, body: Any = None, **more: Any) -> dict[str, Any]:
        if path.endswith("experiments/search"):
            named = self.experiments.items()
            return {"experiments": [{"experiment_id": i, "name": n} for i, n in named]}
        assert path.endswith("runs/search")
        self.searches.append(body["filter"])
        found = [run for run in self.runs if self._fits(run, body)]
        newest_first = body["order_by"] == ["attributes.start_time DESC"]
        return {"runs": found[::-1] if newest_first else found}

    @staticmethod
    def _fits(run: dict[str, Any], body: dict[str, Any]) -> bool:
        tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
        for term in filter(None, body["filter"].split(" AND ")):
            if term.endswith(" IS NOT NULL"):
                if term.split("`")[1] not in tags:
                    return False
                continue
            matched = _TERM.fullmatch(term)
            assert matched is not None, term
            where, key, sign, value = matched.groups()
            stored = tags.get(key) if where == "tags" else str(run["info"][key])
            if stored is None:
                return False
            pattern = re.escape(value).replace("%", ".*")
            fits = {
                "=": stored == value,
                "!=": stored != value,
                "LIKE": re.fullmatch(pattern, stored) is not None,
                ">=": sign == ">=" and int(stored) >= int(value),
            }[sign]
            if not fits:
                return False
        return run["info"]["experiment_id"] in body["experiment_ids"]


def config(pooling: str, seed: int) -> dict[str, Any]:
    model = {"head": {"pooling": {"name": pooling}}}
    return {"seed": seed, "model": model, "data": {"name": "digits"}, "epochs": 2}


def train(server: Server, job_id: str, pooling: str = "gap", seed: int = 0, **more: Any) -> None:
    tags = {TAG_SEED: str(seed)} | more.pop("tags", {})
    metrics = {"val/top1": 80.0 + seed}
    spec = {"config": config(pooling, seed)} | more.pop("spec", {})
    server.add(job_id, "train", spec, tags, metrics, **more)


def evaluate(server: Server, job_id: str, of: str, top1: float, **more: Any) -> None:
    which, crops = more.pop("which", "last"), more.pop("crops", "centre")
    tags = {TAG_CHECKPOINT: f"{of}:{which}", TAG_RESULT: '{"data_digest": "d"}'}
    tags |= {TAG_EVALUATED: of} | more.pop("tags", {})
    spec = {"config": {"crops": crops, "data": {"name": "digits"}}}
    server.add(job_id, "eval", spec, tags, {"eval/top1": top1, "eval/ece": 0.1}, **more)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def store(server: Server) -> JobStore:
    return JobStore(server)  # type: ignore[arg-type]


def test_a_training_comes_with_its_newest_evaluation(server, store):
    train(server, "a", seed=3)
    evaluate(server, "e1", "a", 90.0)
    evaluate(server, "e2", "a", 91.0)
    evaluate(server, "e3", "a", 99.0, status="FAILED")
    (found,) = collect(store, ["a"])
    assert (found.kind, found.seed, found.recipe) == ("train", 3, "digits_resnet_isqrt")
    assert (found.evaluation, found.evaluation_job) == ({"top1": 91.0, "ece": 0.1}, "e2")
    assert found.metrics == {"val/top1": 83.0}
    assert found.config["model.head.pooling.name"] == "gap"
    assert found.facts["evaluated checkpoint"] == "last"
    assert found.facts["data digest"] == "d"


def test_of_several_ways_of_evaluating_that_which_all_have_is_taken(server, store):
    for name in ("a", "b"):
        train(server, name, seed=ord(name))
        evaluate(server, f"{name}-centre", name, 90.0)
    evaluate(server, "b-ten", "b", 95.0, crops="ten")
    assert [t.evaluation_job for t in collect(store, ["a", "b"])] == ["a-centre", "b-centre"]
    assert [t.evaluation_job for t in collect(store, ["b"])] == ["b-ten"]


def test_an_evaluation_stands_for_what_it_judged(server, store):
    train(server, "a")
    evaluate(server, "old", "a", 90.0)
    evaluate(server, "new", "a", 91.0)
    (found,) = collect(store, ["old"])
    assert (found.job_id, found.evaluation_job) == ("a", "old")


def test_an_evaluation_of_a_file_stands_alone(server, store):
    server.add(
        "e", "eval", {"config": {"weights": "/x.pth", "origin": "x.pth"}}, {}, {"eval/top1": 76.0}
    )
    (found,) = collect(store, ["e"])
    assert (found.kind, found.evaluation, found.seed) == ("eval", {"top1": 76.0}, None)
    assert compare([found]).cells[0].values["top1"].mean == 76.0


def test_the_same_job_twice_is_one(server, store):
    train(server, "a")
    train(server, "b")
    assert [t.job_id for t in collect(store, ["b", "a", "b"])] == ["b", "a"]


def test_a_job_that_was_recorded_twice_by_a_lost_reply_is_one(server, store):
    train(server, "a", tags={"gcpctl.recipe": "r"})
    train(server, "a", tags={"gcpctl.recipe": "r"}, status="KILLED")
    server.runs[-1]["info"]["run_id"] = "twin"
    assert [t.run_id for t in collect(store, ["recipe=r"])] == ["run-a"]


def test_unknown_and_ambiguous_names(server, store):
    train(server, "run-a")
    train(server, "run-b")
    with pytest.raises(NotFoundError, match="no job 'x'"):
        collect(store, ["x"])
    with pytest.raises(ConflictError, match="run-a"):
        collect(store, ["run"])
    with pytest.raises(NotFoundError) as caught:
        collect(store, ["study=digit"])
    assert "did you mean 'digits'" in caught.value.hint
    with pytest.raises(NotFoundError, match="no training has 'recipe=x'"):
        collect(store, ["recipe=x"])


def test_tags_and_experiments(server, store):
    train(server, "a", tags={"gcpctl.recipe": "r", "mlflow.user": "me"})
    train(server, "b", tags={"gcpctl.recipe": "r"}, experiment="2")
    train(server, "c", experiment="2")
    evaluate(server, "e", "a", 90.0, tags={"gcpctl.recipe": "r"})
    named = {
        "recipe=r": ["a", "b"],
        "gcpctl.recipe=r": ["a", "b"],
        "mlflow.user=me": ["a"],
        "study=birds": ["b", "c"],
    }
    for name, jobs in named.items():
        assert [t.job_id for t in collect(store, [name])] == jobs


def test_values_cannot_reach_into_the_filter(server, store):
    with pytest.raises(NotFoundError):
        collect(store, ["recipe=x' OR tags.a != 'b"])
    assert "'x OR tags.a != b'" in server.searches[-1]


# --- studies -------------------------------------------------------------------------------------

FACTORS = {
    "pooling": {"levels": {"gap": {}, "isqrt": {}}},
    "stride": {"levels": {"1": {}, "2": {}}},
}


def study(server: Server, **asked: Any) -> None:
    """A study of three cells; one training of another study is used, and evaluated there."""

    def member(cell: str, *, own: bool = True) -> dict[str, str]:
        return {member_tag("s"): cell} | ({TAG_GROUP: "s", TAG_CELL: cell} if own else {})

    cells = {"stride=2": "cov", "pooling=isqrt": "isqrt", "pooling=gap,stride=1": "gap"}
    for cell, pooling in cells.items():
        train(server, f"s-{pooling}", pooling, tags=member(cell))
        evaluate(server, f"e-{pooling}", f"s-{pooling}", 90.0, tags=member(cell))
    train(server, "old", "gap", 1, tags=member("pooling=gap,stride=1", own=False))
    evaluate(server, "old-ten", "old", 93.0, crops="ten")
    evaluate(server, "old-last", "old", 92.0)
    evaluate(server, "old-best", "old", 94.0, which="best")
    server.add(
        "s",
        "ablation",
        {
            "config": {
                "question": "Which?",
                "factors": FACTORS,
                "metric": "loss",
                "evaluate": {"checkpoint": "last", "crops": "centre"},
            }
            | asked
        },
        {TAG_BASELINE_CELL: "pooling=gap,stride=1"},
        status="SCHEDULED",
    )


def test_a_study_has_its_own_and_reused_trainings(server, store):
    study(server)
    found = select(store, ["s"])
    assert [t.job_id for t in found.trainings] == ["s-gap", "old", "s-isqrt", "s-cov"]
    assert [t.cell for t in found.trainings] == ["pooling=gap,stride=1"] * 2 + [
        "pooling=isqrt",
        "stride=2",
    ]
    assert [t.is_baseline for t in found.trainings] == [True, True, False, False]
    assert [t.reused for t in found.trainings] == [False, True, False, False]
    assert (found.metric, found.title) == ("loss", "s: Which?")
    # Its evaluation must be made as the study asks, whoever made it.
    assert found.trainings[1].evaluation_job == "old-last"


def test_a_study_without_evaluations_looks_for_none(server, store):
    study(server, evaluate=None)
    before = {t.job_id: t.evaluation_job for t in collect(store, ["s"])}
    assert before["old"] == ""


def test_the_number_of_requests_does_not_grow_with_the_jobs(server, store):
    for seed in range(100):
        tags = {member_tag("big"): f"c{seed % 5}", TAG_GROUP: "big"}
        train(server, f"big-{seed}", f"p{seed % 5}", seed, tags=tags)
        train(server, f"single-{seed}", "gap", seed, tags={"gcpctl.recipe": "r"})
        evaluate(server, f"e-{seed}", f"single-{seed}", 90.0)
    server.add("big", "ablation", {"config": {"question": "?", "evaluate": {}}})
    for names in (["big"], ["recipe=r"]):
        server.searches.clear()
        found = collect(store, names)
        assert len(found) == 100
        assert len(server.searches) <= 3
    assert all(t.evaluation_job == f"e-{t.seed}" for t in found)


# --- sweeps --------------------------------------------------------------------------------------


def sweep(server: Server) -> None:
    base = config("gap", 4) | {"optim": {"lr": 0.1}}
    objectives = [{"metric": "val/loss", "direction": "min"}]
    server.add(
        "w", "tune", {"config": {"base": base, "objectives": objectives, "trial_workers": 2}}
    )
    chosen: list[dict[str, Any]] = [
        {"optim.lr": 0.01, "model.head.pooling": "isqrt", "model.head.pooling.num_iters": 3},
        {"optim.lr": 0.5, "model.head.pooling.name": "cov"},
    ]
    for number, values in enumerate(chosen):
        tags = {
            TAG_GROUP: "w",
            TAG_CELL: f"lr={values['optim.lr']}",
            TAG_VALUES: json.dumps(values),
        }
        server.add(f"w-t00{number}", "trial", {}, tags, {"val/loss": 0.1 * number})


def test_a_sweep_has_its_trials_with_their_configs(server, store):
    sweep(server)
    found = select(store, ["w"])
    assert found.metric == "val/loss"
    first, second = found.trainings
    assert (first.kind, first.cell, first.seed) == ("trial", "lr=0.01", 4)
    assert first.config["optim.lr"] == 0.01
    assert first.config["model.head.pooling.name"] == "isqrt"
    assert first.config["model.head.pooling.num_iters"] == 3
    assert second.config["model.head.pooling.name"] == "cov"
    assert "model.head.pooling.num_iters" not in second.config
    assert first.facts["workers"] == 2


def test_one_trial_by_its_name(server, store):
    sweep(server)
    train(server, "a")
    assert [t.job_id for t in collect(store, ["w-t001", "a"])] == ["w-t001", "a"]
    with pytest.raises(NotFoundError, match="has no trial 'w-t007'"):
        collect(store, ["w-t007"])
    with pytest.raises(NotFoundError, match="no job 'a-t007'"):
        collect(store, ["a-t007"])


# --- published numbers ---------------------------------------------------------------------------


def test_a_published_number_is_for_the_recipe_as_it_stands(server, store):
    from orchestrator.jobs.plan import Request, plan_train

    def submit(job_id: str, *overrides: str) -> None:
        given = ["data.path=/d", *overrides]
        plan = plan_train("imagenet_resnet50_isqrt_lradju", given, Request(name=job_id))
        server.add(job_id, "train", plan.spec.model_dump(mode="json"))

    submit("as-it-stands", "seed=3", "data.loader_workers=8", "log_every_steps=100")
    submit("packed", "data=packed", "job.num_workers=8")
    submit("wider", "model.head.reduced_channels=64")
    submit("shorter", "epochs=49")
    found = collect(store, ["as-it-stands", "packed", "wider", "shorter"])
    assert [t.published for t in found] == [78.03, 78.03, None, None]
