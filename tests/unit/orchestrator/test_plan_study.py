"""Planning studies: every mistake of every cell at once, and what cells become."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.jobs import ids
from orchestrator.jobs.errors import NotFoundError
from orchestrator.jobs.plan import Request, plan_train
from orchestrator.jobs.plan_study import (
    StudyRequest,
    as_job,
    plan_evaluation,
    plan_study,
)
from orchestrator.jobs.recipes import kind_of, recipe_files
from orchestrator.jobs.study_file import as_override, load_study
from workloads.config.document import apply_overrides
from workloads.config.errors import ConfigError

LOOK = StudyRequest(train=Request(to_be_given=True))
STUDIES = sorted(recipe_files("ablation"))


def write(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def problems(name: str, *overrides: str, request: StudyRequest = LOOK) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        plan_study(name, overrides, request)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_that_comes_along_plans(name):
    plan = plan_study(name, [], LOOK)
    assert plan.config.question.endswith("?")
    assert plan.baseline.cell.is_baseline
    digests = {p.config_sha256 for _, _, p in plan.trainings()}
    assert len(digests) == len(plan.cells) * len(plan.config.seeds)


def test_cells_are_the_trainings_that_one_would_submit_by_hand():
    plan = plan_study("pooling", ["epochs=3", "seeds=[0,7]"], LOOK)
    cell = next(c for c in plan.cells if c.cell.name == "pooling=isqrt")
    by_hand = plan_train(
        plan.config.recipe, ["model.head.pooling=isqrt", "epochs=3"], Request(seed=7)
    )
    assert cell.plans[1].config_sha256 == by_hand.config_sha256
    assert cell.plans[1].config == by_hand.config
    assert cell.plans[1].spec.resources == by_hand.spec.resources


def test_all_cells_of_a_seed_come_before_the_next_seed():
    plan = plan_study("isqrt_iterations", ["seeds=[4,2]"], LOOK)
    order = [(seed, planned.cell.name) for planned, seed, _ in plan.trainings()]
    assert [seed for seed, _ in order] == [4] * 6 + [2] * 6
    assert order[0] == (4, "iterations=5")


def test_keys_of_the_study_change_it_and_others_go_into_every_cell():
    name, _, config = load_study(
        "pooling", ["mode=grid", "evaluate=null", "optim.lr=0.01", "data=digits"]
    )
    assert (name, config.mode, config.evaluate) == ("pooling", "grid", None)
    assert config.overrides == {"optim.lr": 0.01, "data": "digits"}


def test_an_override_takes_the_place_of_what_it_makes_void(tmp_path):
    path = write(
        tmp_path,
        "question: Q?\nrecipe: digits_study\noverrides: {optim.name: sgd, optim.lr: 1.0}\n"
        "factors: {f: {key: epochs, levels: [1, 2]}}\n",
    )
    assert load_study(path, ["optim=adamw"])[2].overrides == {"optim": "adamw"}
    _, _, config = load_study(path, ["optim.lr=0.5"])
    assert config.overrides == {"optim.name": "sgd", "optim.lr": 0.5}


def test_every_mistake_of_every_cell_is_told_with_its_name():
    told = problems(
        "isqrt_iterations", "factors.iterations.levels=[5, 0, many]", "global_batch_size=0"
    )
    assert sorted(told) == [
        "cell iterations=0: model.head.pooling.num_iters: got 0 (allowed: >= 1 and <= 100)",
        'cell iterations=many: model.head.pooling.num_iters: got "many" (expected a whole number)',
        "every cell: global_batch_size: got 0 (allowed: >= 1 and <= 1000000)",
    ]


def test_a_level_that_does_not_fit_the_recipe_names_its_cell():
    (text,) = problems("isqrt_iterations", "factors.iterations.levels=[5, 2000]")
    assert text.startswith("cell iterations=2000: model.head.pooling.num_iters: got 2000")


def test_equal_cells_are_refused_by_name():
    levels = (
        "factors.pooling.levels={gap: {model.head.pooling: gap}, again: {model.head.pooling: gap}}"
    )
    (text,) = problems("pooling", levels, "factors.pooling.key=null")
    assert text.startswith("cell pooling=again: is the same training as the cell pooling=gap")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("mode=gird", "did you mean 'grid'?"),
        ("metric=top2", "did you mean 'top5'?"),
        ("model.head.pooling=gap", "is what the factor pooling varies"),
        ("seed=1", "write seeds=[0,1,2]"),
        ("optim.lrr=1", "every cell: optim.lrr: unknown key (did you mean 'lr'?)"),
        ("seeds=[]", "must not be empty"),
    ],
)
def test_mistakes(override, words):
    assert any(words in text for text in problems("pooling", override))


def test_without_an_evaluation_only_the_trainings_own_numbers_compare():
    (text,) = problems("pooling", "evaluate=null", "metric=ece")
    assert "nothing is evaluated here; allowed: top1, loss" in text
    assert plan_study("pooling", ["evaluate=null"], LOOK).config.metric == "top1"


def test_unknown_names():
    with pytest.raises(NotFoundError) as caught:
        plan_study("poolin", [], LOOK)
    assert caught.value.hint == "did you mean 'pooling'?"
    with pytest.raises(NotFoundError, match="recipe for 'train', not 'ablation'"):
        plan_study("digits_resnet_gap", [], LOOK)
    with pytest.raises(NotFoundError, match="no recipe 'digits_resnet_ga'"):
        plan_study("pooling", ["recipe=digits_resnet_ga"], LOOK)


def test_only_some_cells_and_always_the_baseline():
    plan = plan_study("pooling", [], replace(LOOK, only=("*=isqrt", "pooling=*cov")))
    names = [planned.cell.name for planned in plan.cells]
    assert names == ["pooling=gap", "pooling=cov", "pooling=isqrt", "pooling=dropcov"]
    with pytest.raises(NotFoundError) as caught:
        plan_study("pooling", [], replace(LOOK, only=("pooling=isqr",)))
    assert "did you mean 'pooling=isqrt'?" in caught.value.hint


def test_another_question_is_another_study_and_another_pace_is_not():
    def digest(*overrides: str) -> str:
        return plan_study("pooling", overrides, LOOK).config_sha256

    assert digest() == digest() == digest("max_parallel=2", "pack=false")
    others = {digest(), digest("epochs=2"), digest("seeds=[0]"), digest("metric=loss"),
              digest("job.num_workers=2"), digest("study=elsewhere")}  # fmt: skip
    assert len(others) == 6


def test_cells_of_one_worker_may_share_a_process():
    def packs(*overrides: str) -> set[str]:
        return {p.spec.pack for _, _, p in plan_study("pooling", overrides, LOOK).trainings()}

    assert packs() == {"cells"}
    assert packs("pack=false") == packs("job.num_workers=2") == {""}
    assert packs("job.num_workers=2", "job.min_workers=1") == {""}
    plan = plan_study("pooling", ["max_parallel=3"], LOOK)
    assert {p.spec.max_parallel for _, _, p in plan.trainings()} == {3}


def test_an_evaluation_waits_for_its_training_and_takes_its_last_weights():
    plan = plan_study("pooling", ["evaluate.crops=flip", "study=a 'b' {c}"], LOOK)
    planned = plan.cells[1]
    job = as_job(planned.plans[0])
    found = plan_evaluation(plan, planned.cell, job, Path("/storage"))
    assert found.spec.after == (job.job_id,)
    assert found.config.weights == f"/storage/{job.job_id}:last"
    assert found.config.origin == f"{job.job_id}:last"
    assert found.config.crops == "flip"
    assert found.spec.study == "a 'b' {c}"
    assert found.spec.pack == "cells"


def test_the_recipe_of_a_study_in_a_folder_is_looked_for_there(tmp_path, monkeypatch):
    write(tmp_path, "extends: digits_study\nstudy: mine\nepochs: 2\n", "base.yaml")
    path = write(
        tmp_path,
        "question: Q?\nrecipe: ./base.yaml\nfactors: {f: {key: optim.lr, levels: [0.1, 0.2]}}\n",
    )
    monkeypatch.chdir("/")
    plan = plan_study(path, [], LOOK)
    assert plan.spec.study == "mine"
    assert plan.name == "mine"
    assert kind_of(path) == "ablation"
    assert kind_of(str(tmp_path / "base.yaml")) == "train"


def test_a_study_that_fits_into_no_tag_is_refused():
    (text,) = problems("pooling", f"question={'why ' * 2000}", "seeds=[0]")
    assert "characters that MLflow stores in a tag" in text


@pytest.mark.parametrize(
    "value",
    ["isqrt", "null", "true", "1e-3", "a b", "", "x: y", 0.1, 1e-05, None, False, 7, [1, "a", None],
     {"name": "isqrt", "num_iters": 3, "deep": {"a": [1.5, "no"]}}, "ä'\"\\", "/data/x"],
)  # fmt: skip
def test_overrides_read_back_as_they_were(value):
    assert apply_overrides({}, [as_override("key", value)]) == {"key": value}


def test_ids_of_members_say_the_study_the_cell_and_the_seed():
    new = ids.new_member_id
    assert new("pooling", "pooling=isqrt", 0, kind="train")[:-4] == "pooling-isqrt-s0-"
    assert new("isqrt_iterations", "iterations=3", 12, kind="eval")[:-4] == (
        "eval-isqrt-iterations-3-s12-"
    )
    assert new("heads", "pooling=isqrt,stride=1", 0, kind="train")[:-4] == (
        "heads-pooling-isqrt-stride-1-s0-"
    )
    cell = "pooling=log_euclidean,width=256,stride=1"
    long = new("a-very-long-name-of-a-study", cell, 2_000_000_000, kind="eval")
    assert len(long) <= ids.MAX_LENGTH
    assert not ids.name_problem(long)
    assert "-s2000000000-" in long
