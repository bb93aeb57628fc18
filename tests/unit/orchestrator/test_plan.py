"""From recipe and overrides to a spec: every mistake is met here."""

import pytest

from orchestrator.jobs.errors import InfeasibleError, NotFoundError
from orchestrator.jobs.plan import Request, check_feasible, plan_train
from orchestrator.jobs.ray_jobs import Node
from orchestrator.jobs.recipes import merge
from orchestrator.jobs.spec import Resources
from workloads.config.errors import ConfigError

RECIPE = "digits_resnet_isqrt"


def test_overrides_and_options_reach_the_spec():
    request = Request(name="my-job", workers=4, priority=7, seed=11, after=("a",))
    plan = plan_train(RECIPE, ["optim.lr=1e-2", "model.head.pooling.num_iters=3"], request)
    spec = plan.spec
    assert spec.job_id == "my-job"
    assert (spec.resources.num_workers, spec.priority, spec.after) == (4, 7, ("a",))
    assert spec.config["optim"]["lr"] == 0.01
    pooling = spec.config["model"]["head"]["pooling"]
    assert (pooling["name"], pooling["num_iters"]) == ("isqrt", 3)
    assert spec.config["seed"] == 11


def test_the_same_request_plans_the_same_config():
    first, second = (plan_train(RECIPE, ["seed=3"], Request()) for _ in range(2))
    assert first.config_sha256 == second.config_sha256
    assert first.spec.job_id != second.spec.job_id


def test_smoke_is_short_and_keeps_the_rest():
    plan = plan_train(RECIPE, [], Request(smoke=True))
    assert (plan.config.epochs, plan.config.steps_per_epoch) == (1, 4)
    assert plan.spec.study == "smoke"


def test_pooling_can_be_exchanged_by_name():
    plan = plan_train(RECIPE, ["model.head.pooling=gap"], Request())
    assert plan.spec.config["model"]["head"]["pooling"] == {"name": "gap", "grid": 1}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["optim.lrr=1"], ["optim.lrr", "lr"]),
        (["optm.lr=1"], ["optm", "optim"]),
        (["optim.lr=fast"], ["optim.lr", "fast"]),
        (["optim.lr=-1"], ["optim.lr", "allowed: > 0"]),
        (["optim.lr=nan"], ["optim.lr"]),
        (["epochs=1.5"], ["epochs"]),
        (["epochs=true"], ["epochs"]),
        (["epochs"], ["epochs", "="]),
        (["model.head.pooling=isqr"], ["pooling", "isqrt"]),
        (["job.num_workers=0"], ["num_workers"]),
        (["job.nums=1"], ["nums"]),
        (["global_batch_size=65"], ["global_batch_size", "2 workers", "64 or 66"]),
        (["schedule.warmup_epochs=50"], ["warmup_epochs", "epochs"]),
        (["schedule=gcp_poly", "epochs=60"], ["schedule", "0 after 53 epochs", "epochs=53"]),
        (["schedule.cooldown_epochs=5"], ["0 after 15 epochs", "final_lr_ratio"]),
        (["init.weights=s3://bucket/w.pth"], ["init.weights", "s3://", "runs:"]),
        (["data=packed", "data.path=http://x/y"], ["data.path", "http://", "s3:"]),
        (["job=[]"], ["job", "mapping", "[]"]),
        (["seed=99999999999"], ["seed", "< 2147483648"]),
        (["init.weights=' '"], ["init.weights", "must not be empty"]),
        (["label_smoothing=0.95", "label_smoothing_over=others"], ["of 10 classes at most 0.9"]),
        (["augment.rand_augment={}"], ["augment.rand_augment", "0 to 255", "digits go to 16"]),
        (["augment.erasing.min_area=0.5"], ["min_area (0.5) is above max_area"]),
        (["images.std=[1e-300]"], ["images.std[0]", ">= 0.0001"]),
        (
            ["model.head.pooling={name: svpn, num_values: 9}", "model.head.reduced_channels=8"],
            ["num_values (9)", "8 channels"],
        ),
        (
            [
                "model.head={reduced_channels: null, pooling: {name: svpn, num_values: 9}}",
                "model.backbone={width: 4, blocks: [1, 1]}",
            ],
            ["num_values (9)", "8 channels"],
        ),
        (
            [
                "model.backbone={name: deit_tiny, image_size: 8, patch_size: 4}",
                "model.head.class_token=only",
                "freeze.parts=[features, classifier]",
            ],
            ["freeze.parts", "none is trained"],
        ),
        (["model.backbone=vgg16"], ["vgg16 (last_pool true) cannot take images of 8x8"]),
    ],
)
def test_mistakes_name_the_place_and_the_remedy(overrides, words):
    with pytest.raises(ConfigError) as caught:
        plan_train(RECIPE, overrides, Request())
    for word in words:
        assert word in str(caught.value)


ONE_POSITION = ["model.head.pooling=gap", "model.backbone=resnet18"]


@pytest.mark.parametrize(
    ("overrides", "workers"),
    [
        (["global_batch_size=1"], 1),
        (["model.head.reduced_channels=null"], 64),
        (["model.head.reduced_channels=null"], (2, 64)),
        (["compute.max_images_per_worker=1"], 1),
        (["compute.max_images_per_worker=1", "freeze={}"], 1),  # the reduction has one too
        (["compute.max_images_per_worker=1", "model.backbone=vgg16", "images.size=32"], 1),
    ],
)
def test_batch_norm_of_one_value_is_refused(overrides, workers):
    with pytest.raises(ConfigError, match=r"leaves 1 position of it: batch norm") as caught:
        plan_train(RECIPE, [*ONE_POSITION, *overrides], Request(workers=workers))
    assert "fewer workers" in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["compute.max_images_per_worker=2"],
        ["compute.max_images_per_worker=1", "images.size=64"],
        ["compute.max_images_per_worker=1", "freeze.parts=[features, reduction]"],
        ["compute.max_images_per_worker=1", "model.head.reduced_channels=null",
         "model.backbone=vgg16_bn", "images.size=32"],
        ["compute.max_images_per_worker=1", "model.head.reduced_channels=null",
         "model.backbone={name: deit_tiny, image_size: 8, patch_size: 8}"],
    ],
)  # fmt: skip
def test_batch_norm_of_more_than_one_value_is_trained(overrides):
    assert plan_train(RECIPE, [*ONE_POSITION, *overrides], Request(workers=1))


def test_unknown_recipe_names_the_closest():
    with pytest.raises(NotFoundError) as caught:
        plan_train("digits_resnet_isqt", [], Request())
    assert RECIPE in caught.value.hint


@pytest.mark.parametrize(
    "content",
    [b"", b"- a\n- b\n", b"a: [1\n", b"\xff\xfe\x00", b"a: 1\na: 2\n", b"a: &x 1\nb: *x\n"],
)
def test_files_that_are_no_recipes(tmp_path, content):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        plan_train(str(path), [], Request())
    assert "bad.yaml" in str(caught.value)


def test_a_recipe_file_may_extend_one_of_ours(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: {RECIPE}\nmodel: {{head: {{pooling: {{name: gap}}}}}}\n")
    plan = plan_train(str(path), [], Request())
    assert plan.spec.recipe == "mine"
    assert plan.spec.config["model"]["head"]["pooling"] == {"name": "gap", "grid": 1}
    assert plan.spec.study == "digits"


def test_merge_replaces_a_choice_whole():
    base = {"p": {"name": "isqrt", "num_iters": 3}, "q": {"a": 1}}
    change = {"p": {"name": "gap"}, "q": {"b": 2}}
    assert merge(base, change) == {"p": {"name": "gap"}, "q": {"a": 1, "b": 2}}


def test_what_can_never_fit_is_refused_with_what_would():
    wanted = Resources(num_workers=3, cpus_per_worker=2)
    nodes = [Node(cpus=3, gpus=0), Node(cpus=3, gpus=0)]  # 6 CPUs, but two such workers
    with pytest.raises(InfeasibleError, match="3 workers x 2 CPU") as caught:
        check_feasible(wanted, nodes, where="the cluster")
    assert "--workers 2" in caught.value.hint
    check_feasible(Resources(num_workers=2, cpus_per_worker=2), nodes, where="the cluster")


def test_gpus_that_are_not_there():
    with pytest.raises(InfeasibleError) as caught:
        check_feasible(Resources(gpus_per_worker=1), [Node(cpus=8, gpus=0)], where="this machine")
    assert "gpus_per_worker" in caught.value.hint


FOLDER_RECIPE = "folder_resnet18_isqrt"


def test_a_relative_data_folder_is_made_absolute_where_the_cluster_is_here(tmp_path):
    plan = plan_train(FOLDER_RECIPE, ["data.path=birds"], Request(folder=tmp_path))
    assert plan.spec.config["data"]["path"] == str(tmp_path / "birds")
    with pytest.raises(ConfigError, match="relative"):
        plan_train(FOLDER_RECIPE, ["data.path=birds"], Request())


@pytest.mark.parametrize("study", ["''", "x" * 300])
def test_studies_that_mlflow_would_refuse(study):
    with pytest.raises(ConfigError, match="study"):
        plan_train(RECIPE, [f"study={study}"], Request())


# --- elastic worker counts -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "ends", "counts"),
    [
        (4, (4, 4), ()),
        ((2, 8), (2, 8), (2, 4, 8)),
        ((3, 9), (4, 8), (4, 8)),
        ((3, 3 + 2), (4, 4), (4,)),
        ((2, 2), (2, 2), ()),
    ],
)
def test_only_counts_that_share_the_batch_are_asked_for(workers, ends, counts):
    spec = plan_train(RECIPE, [], Request(workers=workers)).spec
    assert (spec.resources.least_workers, spec.resources.num_workers) == ends
    assert spec.worker_counts == counts
    assert spec.config["global_batch_size"] == 64


def test_the_config_does_not_depend_on_the_workers():
    plans = [plan_train(RECIPE, [], Request(workers=w)) for w in (1, 4, (2, 8))]
    assert len({plan.config_sha256 for plan in plans}) == 1


def test_a_recipe_may_ask_for_workers_and_an_option_replaces_it():
    keys = ["job.num_workers=8", "job.min_workers=2"]
    assert plan_train(RECIPE, keys, Request()).spec.worker_counts == (2, 4, 8)
    spec = plan_train(RECIPE, keys, Request(workers=4)).spec
    assert (spec.resources.num_workers, spec.resources.min_workers) == (4, None)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["job.min_workers=9", "job.num_workers=2"],
            "min_workers (9) is more than num_work",
        ),
        (["job.min_workers=5", "job.num_workers=7"], "4 or 8 would"),
        (
            ["mix={}", "job.num_workers=64"],
            "pairs of images, and 64 workers have 1 each",
        ),
        (["mix={}", "compute.max_images_per_worker=1"], "mix blends pairs of images"),
    ],
)
def test_workers_that_cannot_share_the_batch(overrides, words):
    with pytest.raises(ConfigError) as caught:
        plan_train(RECIPE, overrides, Request())
    assert words in str(caught.value)


def test_an_elastic_job_is_feasible_where_its_fewest_workers_fit():
    wanted = Resources(min_workers=2, num_workers=64)
    check_feasible(wanted, [Node(cpus=3, gpus=0)], where="the cluster")
    with pytest.raises(InfeasibleError, match="2 to 64 workers x 1 CPU"):
        check_feasible(wanted, [Node(cpus=1, gpus=0)], where="the cluster")


# --- paths and weights ---------------------------------------------------------------------------


def test_initial_weights_are_made_absolute_and_jobs_are_asked_for(tmp_path):
    plan = plan_train(RECIPE, ["init.weights=w.pth"], Request(folder=tmp_path))
    assert plan.config.init.weights == str(tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"init\.weights: 'w.pth' is relative"):
        plan_train(RECIPE, ["init.weights=w.pth"], Request())
    request = Request(folder=tmp_path, resolve_weights=lambda text: f"/storage/{text}")
    plan = plan_train(RECIPE, ["init.weights=train-x7:best"], request)
    assert plan.spec.config["init"]["weights"] == "/storage/train-x7:best"


def test_folders_in_stores_stay_as_they_are():
    plan = plan_train(FOLDER_RECIPE, ["data.path=s3://bucket/birds"], Request())
    assert plan.config.data.path == "s3://bucket/birds"


def test_both_relative_paths_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        plan_train(FOLDER_RECIPE, ["data.path=birds", "init.weights=w.pth"], Request())
    assert [problem.path for problem in caught.value.problems] == ["data.path", "init.weights"]
