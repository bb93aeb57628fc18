"""From a checkpoint and options to the spec of an evaluation."""

import json
from pathlib import Path

import pytest

from orchestrator.jobs.checkpoints import ResolvedCheckpoint
from orchestrator.jobs.errors import NotFoundError
from orchestrator.jobs.eval_data import data_of, legacy_images
from orchestrator.jobs.job import TAG_JOB_ID, TAG_KIND, TAG_SPEC, Job
from orchestrator.jobs.plan import Request, plan_train
from orchestrator.jobs.plan_eval import EvalRequest, KnownNetwork, plan_eval
from orchestrator.jobs.states import State
from workloads.config.errors import ConfigError
from workloads.config.published_images import published_images
from workloads.config.zoo import load_zoo

FOLDER = Path("/here")


def trained(*overrides: str) -> ResolvedCheckpoint:
    """Return a checkpoint of a finished training of digits."""
    spec = plan_train("digits_resnet_isqrt", overrides, Request(name="train-a")).spec
    tags = {
        TAG_JOB_ID: "train-a",
        TAG_KIND: "train",
        TAG_SPEC: json.dumps(spec.model_dump(mode="json")),
    }
    job = Job("r", "1", State.FINISHED, tags, {}, 0, None, "")
    return ResolvedCheckpoint("/storage/train-a/checkpoints/step-0000000004", "train-a:best", job)


def of_file(network: str = "") -> tuple[ResolvedCheckpoint, KnownNetwork]:
    """Return a file of weights, with its network if that has a name."""
    checkpoint = ResolvedCheckpoint("/w/resnet50.pth.tar", "/w/resnet50.pth.tar")
    if not network:
        return checkpoint, KnownNetwork()
    entry = load_zoo()[network]
    images = published_images(entry.model, entry.image_size)
    return checkpoint, KnownNetwork(entry.model, network, images, 3, 1000)


def request(**fields) -> EvalRequest:
    return EvalRequest(**{"folder": FOLDER, **fields})


def test_a_jobs_checkpoint_brings_everything_with_it():
    checkpoint = trained("images.size=16", "study=birds", "job.cpus_per_worker=2")
    plan = plan_eval(checkpoint, KnownNetwork(), (), request())
    spec, config = plan.spec, plan.config
    assert (spec.kind, spec.study, spec.recipe) == ("eval", "birds", "digits_resnet_isqrt")
    assert (spec.resources.num_workers, spec.resources.cpus_per_worker) == (1, 2)
    assert spec.job_id.startswith("eval-digits-resnet-isqrt-")
    assert (config.weights, config.origin) == (checkpoint.weights, "train-a:best")
    assert config.data.name == "digits"
    assert config.images.size == 16
    assert config.model.head.pooling.name == "isqrt"
    assert (config.split, config.crops) == ("val", "centre")
    assert plan.tags() == {
        "gcpctl.checkpoint": "train-a:best",
        "gcpctl.evaluated_job": "train-a",
    }
    assert "train-a:best on digits, val, centre crop, 16 pixels" in spec.description


def test_options_win_over_overrides_and_those_over_the_training():
    plan = plan_eval(
        trained(),
        KnownNetwork(),
        ("crops=flip", "job.num_workers=3", "calibration_bins=10", "study=later"),
        request(options={"crops": "ten", "batch_size": 7}, workers=2, name="mine", priority=4),
    )
    assert (plan.config.crops, plan.config.batch_size) == ("ten", 7)
    assert plan.config.calibration_bins == 10
    assert plan.spec.resources.num_workers == 2
    assert (plan.spec.job_id, plan.spec.priority, plan.spec.study) == ("mine", 4, "later")


def test_other_data_keep_the_images_of_the_training(tmp_path):
    plan = plan_eval(
        trained("images.mean=[0.3]", "images.std=[0.4]"),
        KnownNetwork(),
        (),
        request(data="fashion_mnist"),
    )
    assert plan.config.data.name == "fashion_mnist"
    assert (plan.config.images.size, plan.config.images.mean) == (8, (0.3,))


def test_equal_configs_have_equal_digests_whatever_the_number_of_workers():
    one = plan_eval(trained(), KnownNetwork(), (), request(workers=1))
    three = plan_eval(trained(), KnownNetwork(), (), request(workers=3))
    assert one.config_sha256 == three.config_sha256
    assert one.with_new_id().spec.job_id != one.spec.job_id
    assert one.with_new_id().config_sha256 == one.config_sha256


# --- files of weights ----------------------------------------------------------------------------


def test_published_weights_are_judged_as_they_were_published(tmp_path):
    (tmp_path / "val").mkdir()
    checkpoint, network = of_file("inception_v3_gap")
    plan = plan_eval(checkpoint, network, (), request(data=str(tmp_path)))
    assert (plan.config.images.size, plan.config.images.resize) == (299, 342)
    assert plan.config.model == network.model
    assert plan.spec.recipe == "inception_v3_gap"
    assert plan.spec.study == "evaluations"
    assert plan.tags() == {"gcpctl.checkpoint": "/w/resnet50.pth.tar"}
    unknown = plan_eval(*of_file(), (), request(data=str(tmp_path)))
    assert unknown.spec.job_id.startswith("eval-resnet50-")
    assert (unknown.config.images.size, unknown.config.images.resize) == (224, 256)
    assert unknown.config.model is None


@pytest.mark.parametrize(
    ("network", "interpolation", "size", "resize", "std"),
    [
        ("resnet50_isqrt_256", "bilinear", 224, 256, 0.229),
        ("deit_small", "bicubic", 224, 256, 0.229),
        ("se_resnet50_isqrt_128", "bilinear", 256, 292, 1 / 255),
    ],
)
def test_published_preparations(network, interpolation, size, resize, std):
    images = published_images(load_zoo()[network].model, 224)
    assert (images.interpolation, images.size, images.resize) == (interpolation, size, resize)
    assert images.std[0] == std


def test_overrides_reach_a_files_network():
    checkpoint, network = of_file("resnet50_isqrt_256")
    plan = plan_eval(
        checkpoint, network, ("model.head.pooling.num_iters=3", "images.size=448"),
        request(data="s3://bucket/birds"),
    )  # fmt: skip
    assert plan.config.model.head.pooling.num_iters == 3
    assert plan.config.model.backbone.name == "resnet50"
    assert (plan.config.images.size, plan.config.images.resize) == (448, 512)
    assert plan.config.data.path == "s3://bucket/birds"


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "fields", "words"),
    [
        (("batch_sise=3",), {}, "did you mean 'batch_size'"),
        (("crops=nine",), {}, "allowed: centre, flip, ten"),
        (("weights=/x",), {}, "what --checkpoint says"),
        (("job.min_workers=1", "job.num_workers=2"), {}, "fixed number of workers"),
        (("job.num_workers=0",), {}, "job"),
        (("job=3",), {}, "job: wants a mapping"),
        (("classes=[a, b]",), {}, "2 names are given; the network has 10"),
        (("data=cifar10", "data.path=/c"), {}, "images of 1 channel; those of cifar10 have 3"),
        (("images.size=4", "model.backbone.blocks=[1,1,1]"), {}, "more than one position"),
        ((), {"name": "Bad Name"}, "lower-case"),
        (("data=image_folder", "data.path=birds"), {"folder": None}, "begin it with /"),
    ],
)
def test_mistakes_are_met_before_anything_runs(overrides, fields, words):
    with pytest.raises(ConfigError, match=words):
        plan_eval(trained(), KnownNetwork(), overrides, request(**fields))


def test_a_file_needs_data():
    with pytest.raises(ConfigError, match="--data"):
        plan_eval(*of_file(), (), request())
    plan_eval(*of_file(), ("data.name=cifar10", "data.path=/c"), request())


def test_other_numbers_of_classes_are_met_where_both_are_known():
    checkpoint, network = of_file("resnet50_isqrt_256")
    with pytest.raises(ConfigError, match="1000 classes apart; cifar10 has 10"):
        plan_eval(checkpoint, network, ("data=cifar10", "data.path=/c"), request())


# --- which data ----------------------------------------------------------------------------------


def test_a_folder_shows_what_it_is(tmp_path):
    for mark, name in (
        ("a/manifest.json", "packed"),
        ("b/train_test_split.txt", "cub200"),
        ("c/t10k-images-idx3-ubyte.gz", "fashion_mnist"),
        ("d/batches.meta", "cifar10"),
        ("e/val/one.jpg", "image_folder"),
    ):
        path = tmp_path / mark
        path.parent.mkdir(parents=True)
        path.touch()
        folder = mark[0]
        assert data_of(folder, tmp_path) == {"name": name, "path": str(tmp_path / folder)}
    assert data_of("digits", tmp_path) == {"name": "digits"}
    (tmp_path / "f").mkdir()
    with pytest.raises(ConfigError, match="neither"):
        data_of("f", tmp_path)
    with pytest.raises(NotFoundError) as caught:
        data_of("digts", tmp_path)
    assert "did you mean 'digits'" in caught.value.hint


def test_an_image_folder_may_have_a_manifest_of_another_program(tmp_path):
    (tmp_path / "val" / "ant").mkdir(parents=True)
    (tmp_path / "manifest.json").write_text("{}")
    assert data_of(str(tmp_path), tmp_path)["name"] == "image_folder"


def test_a_folder_elsewhere_is_not_looked_at():
    assert data_of("/data/birds", None) == {"name": "image_folder", "path": "/data/birds"}
    assert data_of("s3://b/birds/manifest.json", FOLDER) == {
        "name": "packed",
        "path": "s3://b/birds",
    }


def test_jobs_of_earlier_releases_are_still_read():
    old = {"data": {"name": "image_folder", "path": "/d", "image_size": 112, "resize_size": None,
                    "augment": True}}  # fmt: skip
    data, images = legacy_images(old)
    assert data == {"name": "image_folder", "path": "/d"}
    assert (images["size"], images["resize"]) == (112, 128)
    _, images = legacy_images({"data": {"name": "digits", "val_fraction": 0.2, "augment": True}})
    assert (images["size"], images["resize"]) == (8, None)


def test_an_average_that_was_never_kept_is_met_at_submit():
    with pytest.raises(ConfigError, match="train-a kept no moving average"):
        plan_eval(trained(), KnownNetwork(), ("average=ema",), request())
    plan = plan_eval(trained("ema.decay=0.9"), KnownNetwork(), ("average=ema",), request())
    assert plan.config.average == "ema"
