"""From recipe and space to a sweep's spec; what cannot work is met here, with its reason."""

import random

import pytest

from orchestrator.jobs.errors import NotFoundError
from orchestrator.jobs.job import TAG_KIND, TAG_SEED, Job
from orchestrator.jobs.plan import Request, plan_train
from orchestrator.jobs.plan_tune import TuneRequest, plan_tune
from orchestrator.jobs.provenance import Provenance
from orchestrator.jobs.ray_jobs import Node
from orchestrator.jobs.recipes import recipe_files
from orchestrator.jobs.space import num_trials, sample, trial_config
from orchestrator.jobs.states import State
from orchestrator.jobs.submit import params_of, tags_of
from orchestrator.jobs.sweep_options import load_space, parse_objective, parse_scheduler
from workloads.config.errors import ConfigError
from workloads.config.sweep import AshaConfig, Objective, PbtConfig, SweepConfig

RECIPE = "digits_resnet_isqrt"
LR = "optim.lr=loguniform(1e-3, 1)"
POOLING = "model.head.pooling=choice(gap, isqrt, dropcov)"
ITERS = "model.head.pooling.num_iters=choice(3, 5, 7) if model.head.pooling=isqrt"
TWO_CORES = (Node(cpus=2, gpus=0),)


def plan(*space, overrides=(), **options):
    request = TuneRequest(space=space or (LR,), **{"nodes": TWO_CORES, **options})
    return plan_tune(RECIPE, overrides, request)


def refusal(*space, overrides=(), **options) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(*space, overrides=overrides, **options)
    return str(caught.value)


def test_the_spec_carries_the_whole_search():
    found = plan(LR, ITERS, POOLING, overrides=["epochs=4"], scheduler="asha", trials=7, seed=3)
    spec = found.spec
    assert (spec.kind, spec.recipe, spec.study) == ("tune", RECIPE, "digits")
    assert spec.job_id.startswith("tune-digits-resnet-isqrt-")
    sweep = SweepConfig.model_validate(spec.config)
    assert sweep == found.config
    assert [dimension.key for dimension in sweep.space] == [
        "optim.lr",
        "model.head.pooling",
        "model.head.pooling.num_iters",
    ]
    assert (sweep.search, sweep.num_trials, sweep.seed) == ("tpe", 7, 3)
    assert sweep.scheduler == AshaConfig()
    assert sweep.objectives == (Objective(metric="val/top1", direction="max"),)
    assert "7 trials, tpe with asha" in spec.description


def test_trials_begin_from_the_recipe_as_submit_would_train_it():
    found = plan(overrides=["epochs=4", "model.head.pooling=gap"], workers=2)
    submitted = plan_train(RECIPE, ["epochs=4", "model.head.pooling=gap"], Request())
    assert trial_config(found.config.base, {}) == submitted.config
    assert found.trial.config_sha256 == submitted.config_sha256


def test_places_are_those_that_the_cluster_sees(tmp_path):
    recipe = "folder_resnet18_isqrt"
    request = TuneRequest(space=(LR,), folder=tmp_path)
    found = plan_tune(recipe, ["data.path=images"], request)
    assert found.config.base["data"]["path"] == str(tmp_path / "images")


@pytest.mark.parametrize(
    ("options", "workers", "counts"),
    [
        ({}, (1, 2), (1, 2)),
        ({"workers": 2}, (2, 2), ()),
        ({"max_parallel": 1}, (1, 1), ()),
        ({"trials": 1}, (1, 1), ()),
        (
            {"nodes": (Node(cpus=9, gpus=0), Node(cpus=3, gpus=0)), "workers": 2},
            (2, 12),
            (2, 4, 6, 8, 10, 12),
        ),
        ({"nodes": (Node(cpus=9, gpus=0),), "workers": 2, "max_parallel": 2}, (2, 4), (2, 4)),
        ({"nodes": ()}, (1, 1), ()),
        ({"nodes": (), "max_parallel": 3}, (1, 3), (1, 2, 3)),
    ],
)
def test_the_job_holds_whole_trials(options, workers, counts):
    found = plan(**options)
    resources = found.spec.resources
    assert (resources.least_workers, resources.num_workers) == workers
    assert found.spec.worker_counts == counts
    assert all(count % found.config.trial_workers == 0 for count in counts)
    assert found.num_parallel * found.config.trial_workers == workers[1]


def test_many_trials_at_once_keep_the_spec_short():
    found = plan(nodes=(Node(cpus=4000, gpus=0),), trials=4000)
    counts = found.spec.worker_counts
    assert (counts[0], counts[-1]) == (1, 4000)
    assert len(counts) < 100
    assert list(counts) == sorted(set(counts))


def test_a_trial_has_one_worker_unless_workers_are_gpus_or_asked_for():
    assert plan().config.trial_workers == 1
    assert "the recipe 2; --workers 2" in plan().remarks[0]
    assert plan(overrides=["job.num_workers=2"]).config.trial_workers == 2
    assert plan(workers=2).config.trial_workers == 2
    gpus = plan_tune(
        "imagenet_resnet18_isqrt_lrfast",
        ["data.path=/data"],
        TuneRequest(space=(LR,), nodes=(Node(cpus=64, gpus=8),)),
    )
    asked = plan_train("imagenet_resnet18_isqrt_lrfast", ["data.path=/data"], Request())
    assert gpus.config.trial_workers == asked.spec.resources.num_workers


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (["optim.lrr=choice(1)"], "optim.lrr: unknown key (did you mean 'lr'?)"),
        (["optim.lr=loguniform(1e-3, 1000)"], "optim.lr: got 1000.0 (allowed: > 0 and <= 100)"),
        (["optim.momentum=uniform(0, 1)"], "optim.momentum: got 1.0 (allowed: >= 0 and < 1)"),
        (["epochs=uniform(2, 5)"], "epochs: got 2.0 (expected a whole number: int(2, 5))"),
        (["epochs=choice(2, five)"], 'epochs: got "five" (expected a whole number)'),
        (["optim.nesterov=choice(0, 1)"], "optim.nesterov: got 0 (expected true or false)"),
        (["model.head.pooling=choice(gap, isqr)"], 'model.head.pooling.name: got "isqr"'),
        (["model.head.pooling=choice(gap, isqr)"], "did you mean 'isqrt'?"),
        (
            [POOLING, "model.head.pooling.num_iters=choice(3, 5)"],
            "num_iters: unknown key (write it with: if model.head.pooling=isqrt)",
        ),
        (
            ["epochs=choice(2, 20)", "schedule.warmup_epochs=choice(1, 5)"],
            "epochs=2 schedule.warmup_epochs=5: schedule.warmup_epochs (5) must be less than",
        ),
        (["schedule=choice(cosine, gcp_poly)", "epochs=choice(20, 60)"], "0 after 53 epochs"),
        (["data=choice(digits)"], "data: cannot be searched (trials are compared on the same"),
        (["data.val_fraction=choice(0.1)"], "data.val_fraction: cannot be searched"),
        (["job.num_workers=choice(1, 2)"], "see --workers and --max-parallel"),
        (["network=choice(resnet18)"], "search those of model.backbone"),
        (["init.weights=choice(a.pth)"], "looked up once"),
        ([], "optim.lr"),
    ],
)
def test_points_that_cannot_be_trained_are_named_with_the_reason(space, message):
    if not space:
        assert message in refusal(LR, overrides=["optim.lr=0.1"])
        return
    assert message in refusal(*space)


def test_a_mistake_is_said_once():
    text = refusal(POOLING, "model.head.pooling.num_iters=choice(3, 5, 7)", LR)
    assert text.count("\n") == 1


def test_what_has_no_part_in_a_mistake_is_not_named():
    text = refusal(POOLING, ITERS, "optim.lr=loguniform(1e-3, 1000)", "seed=int(0, 3)")
    assert text == "--space:\n  optim.lr: got 1000.0 (allowed: > 0 and <= 100)"
    text = refusal(LR, "epochs=choice(2, 20)", POOLING, "schedule.warmup_epochs=choice(0, 5)")
    assert text.startswith("--space:\n  epochs=2 schedule.warmup_epochs=5: ")


def test_a_batch_that_its_workers_cannot_share_is_refused():
    text = "global_batch_size=choice(64, 65)"
    assert "65 images do not divide evenly among 2 workers" in refusal(text, workers=2)
    assert plan(text).config.trial_workers == 1


def test_corners_of_a_large_space_are_all_tried():
    smoothing = ", ".join(f"{number / 1000:g}" for number in range(1, 1000))
    assert "label_smoothing: got 1 " in refusal(f"label_smoothing=choice({smoothing}, 1)", LR)


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        (
            [LR],
            {"search": "grid"},
            "a grid takes every value, and loguniform(0.001, 1.0) has no end",
        ),
        (["optim.lr=choice(1)"], {"search": "grid", "trials": 3}, "the grid has 1 points"),
        (
            ["seed=int(1, 200)", "log_every_steps=int(1, 200)"],
            {"search": "grid"},
            "has over 10000 points",
        ),
        (
            [LR],
            {"scheduler": "asha", "objectives": ("val/top1", "model/macs")},
            "asha ends trials by one number, and there are 2 objectives",
        ),
        ([LR], {"objectives": ("val/top1", "val/top1")}, "val/top1 is named twice"),
        ([LR], {"objectives": ("val/top1",) * 4}, "4 are given (at most 3)"),
        (
            [LR],
            {"scheduler": "median", "objectives": ("model/macs",)},
            "model/macs says nothing of how well they learn",
        ),
        ([LR, "epochs=int(5, 9)"], {"scheduler": "asha"}, "trials are compared at equal epochs"),
        (
            [LR],
            {"scheduler": "asha", "overrides": ["validation.every_epochs=5"]},
            "the recipe validates every 5 epochs only (add validation.every_epochs=1",
        ),
        (
            [LR],
            {"scheduler": "median", "overrides": ["validation.from_epoch=9"]},
            "validates from epoch 9 on only",
        ),
        ([LR], {"scheduler": "asha(grace_epochs=20)"}, "first looks after 20 epochs, when a trial"),
        ([LR], {"scheduler": "median", "trials": 3}, "median waits for 3 trials, and there are 3"),
        (
            [LR],
            {"scheduler": "hyperband", "overrides": ["epochs=8"]},
            "hyperband with reduction_factor 3 needs 9 epochs or more for two rounds",
        ),
        ([LR], {"scheduler": "pbt", "workers": 2}, "pbt cannot have trials of 2 workers"),
        ([LR], {"scheduler": "pbt", "search": "tpe"}, "tpe learns from fixed settings"),
        (["optim.lr=choice(0.1)"], {"scheduler": "pbt", "search": "grid"}, "takes each point once"),
        ([LR], {"scheduler": "pbt", "trials": 3}, "pbt needs a population, not 3 (4 or more)"),
        ([LR], {"scheduler": "pbt(every_epochs=20)"}, "every_epochs below 20"),
        ([POOLING], {"scheduler": "pbt"}, "would not fit the network of another"),
        (["optim=choice(sgd, lars)"], {"scheduler": "pbt"}, "what the optimizer remembers"),
        (
            ["optim.lr_factors.classifier=choice(1, 2)"],
            {"scheduler": "pbt"},
            "what the optimizer remembers",
        ),
        (["global_batch_size=choice(32)"], {"scheduler": "pbt"}, "counts the steps of one batch"),
        (["seed=int(0, 3)"], {"scheduler": "pbt"}, "goes on with the random numbers"),
        (["compute.compile=choice(true)"], {"scheduler": "pbt"}, "cannot change while a training"),
        (
            ["optim.nesterov=choice(true, false)", "optim.lr=choice(1, 2) if optim.nesterov=true"],
            {"scheduler": "pbt"},
            "exists only under a condition",
        ),
        (
            ["optim.weight_decay=uniform(0, 0.1)"],
            {"scheduler": "pbt", "overrides": ["optim.decay_norms_and_biases=false"]},
            "is 0 in some trials",
        ),
        ([LR], {"name": "Bad Name"}, "cannot be a name"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(space, options, message):
    assert message in refusal(*space, **options)


def test_population_based_training_changes_what_may_change_under_way():
    found = plan(
        LR, "optim.weight_decay=uniform(0, 0.1)", "label_smoothing=uniform(0, 0.2)",
        "augment.flip=uniform(0, 0.5)", scheduler="pbt(every_epochs=3, quantile=0.5)",
    )  # fmt: skip
    assert found.config.scheduler == PbtConfig(every_epochs=3, quantile=0.5)
    assert found.config.search == "random"
    assert any("drawn at random" in remark for remark in found.remarks)


def test_a_seed_may_be_searched_and_that_is_said():
    found = plan("seed=int(0, 4)", search="grid")
    assert num_trials(found.config) == 5
    assert any("is chance" in remark for remark in found.remarks)


@pytest.mark.parametrize("name", recipe_files("tune"))
def test_shipped_spaces_are_in_order(name):
    recipe, overrides = RECIPE, []
    if name.startswith("imagenet"):
        recipe, overrides = "imagenet_resnet50_isqrt_lrfast", ["data.path=/data"]
    found = plan_tune(recipe, overrides, TuneRequest(space=(name,)))
    assert load_space(name).description
    assert len(found.config.space) == len(load_space(name).space)
    rng = random.Random(0)
    for _ in range(50):
        trial_config(found.config.base, sample(found.config.space, rng))


def test_a_sweep_is_recorded_as_it_was_planned():
    found = plan(LR, POOLING, ITERS, overrides=["epochs=4"])
    tags = tags_of(found, Provenance(user="me", command="gcpctl tune"), cluster="lab")
    assert tags[TAG_KIND] == "tune"
    assert Job("r", "1", State.SCHEDULED, tags, {}, 0, None, "").spec == found.spec
    assert tags["gcpctl.overrides"] == "epochs=4"
    assert TAG_SEED not in tags, "the seed of a search is not that of a training"
    params = params_of(found)
    assert params["base.epochs"] == 4
    assert params["job.num_workers"] == 2
    assert found.with_new_id().spec.job_id != found.spec.job_id


def test_a_space_may_be_a_file_beside_more_dimensions(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "space:\n  - optim.lr=loguniform(1e-3, 1)\n  - label_smoothing=choice(0, 0.1)\n"
    )
    found = plan(str(file), "optim.momentum=choice(0.8, 0.9)")
    assert [d.key for d in found.config.space] == ["optim.lr", "label_smoothing", "optim.momentum"]
    file.write_text("spaces: []\n")
    assert "spaces: unknown key (did you mean 'space'?)" in refusal(str(file))
    with pytest.raises(NotFoundError, match="there is no file"):
        plan(str(tmp_path / "other.yaml"))
    with pytest.raises(NotFoundError) as caught:
        plan("digit")
    assert "'digits'" in caught.value.hint


def test_options_are_read_as_they_are_written():
    assert parse_scheduler("asha(grace_epochs=2, reduction_factor=4)") == AshaConfig(
        grace_epochs=2, reduction_factor=4
    )
    assert parse_objective("model/macs") == Objective(metric="model/macs", direction="min")
    assert parse_objective("val/top1:min") == Objective(metric="val/top1", direction="min")
    for text, words in (("asha(grace=2)", "grace: unknown key"), ("ahsa", "did you mean 'asha'")):
        with pytest.raises(ConfigError, match=words):
            parse_scheduler(text)
    for text, words in (
        ("eval/top1", "val/top1 is alike"),
        ("val/tp1", "did you mean 'val/top1'"),
        ("val/top1:up", "'up' is no direction"),
    ):
        with pytest.raises(ConfigError, match=words):
            parse_objective(text)
