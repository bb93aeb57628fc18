"""Every mistake at once, in the user's words; short forms; flat names."""

from typing import Any

import pytest

from workloads.config.backbones import ResNetConfig
from workloads.config.document import apply_overrides
from workloads.config.errors import ConfigError
from workloads.config.images import MixConfig
from workloads.config.optim import AdamWConfig
from workloads.config.pooling import GapConfig
from workloads.config.train import EmaConfig, TrainConfig
from workloads.config.validate import flatten, validate


def problems(document: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        validate(TrainConfig, document, "recipe.yaml")
    assert caught.value.source == "recipe.yaml"
    return {
        problem.path: f"{problem.message} ({problem.hint})" if problem.hint else problem.message
        for problem in caught.value.problems
    }


def test_an_empty_document_is_the_default() -> None:
    assert validate(TrainConfig, {}, "x") == TrainConfig()


def test_short_forms() -> None:
    config = validate(
        TrainConfig,
        {"model": {"backbone": "resnet18", "head": {"pooling": "gap"}}, "optim": {"lr": 0.5}},
        "x",
    )
    assert config.model.backbone == ResNetConfig(name="resnet18")
    assert config.model.head.pooling == GapConfig(name="gap")
    assert config.optim.name == "sgd"
    assert config.optim.lr == 0.5


def test_lists_become_tuples_and_whole_numbers_floats() -> None:
    config = validate(
        TrainConfig, {"model": {"backbone": {"blocks": [1, 2]}}, "optim": {"lr": 1}}, "x"
    )
    assert config.model.backbone.blocks == (1, 2)  # type: ignore[union-attr]
    assert isinstance(config.optim.lr, float)


@pytest.mark.parametrize(
    ("document", "path", "message"),
    [
        ({"sed": 1}, "sed", "unknown key (did you mean 'seed'?)"),
        ({"zzz": 1}, "zzz", "unknown key (allowed here: seed, data, "),
        ({"seed": "1"}, "seed", 'got "1" (expected a whole number)'),
        ({"seed": 1.0}, "seed", "got 1.0 (expected a whole number)"),
        ({"seed": True}, "seed", "got true (expected a whole number)"),
        ({"seed": None}, "seed", "got null (expected a whole number)"),
        ({"seed": -1}, "seed", "got -1 (allowed: >= 0 and < 2147483648)"),
        ({"optim": {"lr": True}}, "optim.lr", "got true (expected a number)"),
        ({"optim": {"lr": 101}}, "optim.lr", "got 101 (allowed: > 0 and <= 100)"),
        ({"optim": {"lr": float("nan")}}, "optim.lr", "got nan"),
        ({"optim": {"nesterov": "yes"}}, "optim.nesterov", 'got "yes" (expected true or false)'),
        ({"optim": {"nesterov": 1}}, "optim.nesterov", "got 1 (expected true or false)"),
        (
            {"optim": "adam"},
            "optim.name",
            "got \"adam\" (did you mean 'adamw'?; allowed: sgd, lars, adamw)",
        ),
        ({"optim": {"name": 3}}, "optim.name", 'got "3" (allowed: sgd, lars, adamw)'),
        ({"optim": 3}, "optim", "got 3 (expected a mapping)"),
        (
            {"optim": {"name": "sgd", "betta1": 1}},
            "optim.betta1",
            "unknown key (allowed here: name",
        ),
        (
            {"optim": {"name": "sgd", "beta1": 1}},
            "optim.beta1",
            "unknown key (it belongs to name: adamw; allowed here: name, ",
        ),
        ({"model": {"backbone": "resnet18", "heat": {}}}, "model.heat", "did you mean 'head'?"),
        (
            {"model": {"backbone": {"name": "resnet18", "last_stride": 3}}},
            "model.backbone.last_stride",
            "got 3 (allowed: 1, 2)",
        ),
        (
            {"model": {"backbone": {"blocks": [1, "x"]}}},
            "model.backbone.blocks[1]",
            'got "x" (expected a whole number)',
        ),
        (
            {"model": {"backbone": {"blocks": [1] * 5}}},
            "model.backbone.blocks",
            "expected at most 4 items",
        ),
        ({"model": {"backbone": {"blocks": []}}}, "model.backbone.blocks", "must not be empty"),
        ({"model": {"backbone": {"blocks": 2}}}, "model.backbone.blocks", "expected a list"),
        ({"data": "image_folder"}, "data.path", "is required and not given (write data.path=...)"),
        (
            {"data": {"name": "image_folder", "path": 2024}},
            "data.path",
            "got 2024 (expected text; put it in quotes)",
        ),
        ({"checkpoint": {"every_steps": 0}}, "checkpoint.every_steps", "allowed: >= 1 or null"),
        ({"checkpoint": None}, "checkpoint", "got null (expected a mapping)"),
        (
            {"schedule": {"warmup_epochs": 30}},
            "",
            "schedule.warmup_epochs (30) must be less than epochs (20)",
        ),
        (
            {"optim": {"nesterov": True, "momentum": 0}},
            "optim",
            "nesterov: true needs a momentum above 0",
        ),
        (
            {"model": {"backbone": {"blocks": [1, 0]}}},
            "model.backbone.blocks[1]",
            "got 0 (allowed: >= 1 and <= 100)",
        ),
        (
            {"schedule": {"name": "step", "milestones": [0, 5]}},
            "schedule.milestones[0]",
            "got 0 (allowed: >= 1)",
        ),
        (
            {"schedule": {"name": "step", "milestones": [5, 5]}},
            "schedule.milestones",
            "got [5, 5]; each must be later than the one before",
        ),
        (
            {"schedule": {"name": "step", "milestones": []}},
            "schedule.milestones",
            "must not be empty",
        ),
        ({"data": {"name": "image_folder", "path": " "}}, "data.path", "must not be empty"),
        (
            {"model": {"head": {"pooling": {"name": "isqrt", "num_iters": 101}}}},
            "model.head.pooling.num_iters",
            "got 101 (allowed: >= 1 and <= 100)",
        ),
        (
            {"model": {"backbone": {"blocks": [1, 1, 1, 1]}}},
            "",
            "model.head.pooling isqrt needs a map of more than one position; images of 8x8 "
            "give 1x1 after small_resnet (width 32, blocks [1, 1, 1, 1], last_stride 2). Choose "
            "larger images, last_stride 1 or fewer stages",
        ),
        (
            {
                "data": {"name": "image_folder", "path": "/x"},
                "images": {"size": 32},
                "model": {"backbone": "resnet18"},
            },
            "",
            "images of 32x32 give 1x1 after resnet18 (last_stride 2, stride_at 3x3, stem "
            "imagenet). Choose larger images, last_stride 1 or stem small",
        ),
        (
            {
                "data": {"name": "image_folder", "path": "/x"},
                "images": {"size": 32},
                "model": {"backbone": "vgg16"},
            },
            "",
            "give 1x1 after vgg16 (last_pool true). Choose larger images or last_pool false",
        ),
        (
            {
                "data": {"name": "image_folder", "path": "/x"},
                "images": {"size": 64},
                "model": {"backbone": "deit_tiny"},
            },
            "",
            "cannot take images of 64x64. Choose image_size 64, another images.size or "
            "another backbone",
        ),
        (
            {
                "data": {"name": "image_folder", "path": "/x"},
                "images": {"size": 32},
                "model": {"backbone": "alexnet"},
            },
            "",
            "model.backbone alexnet (last_pool true) cannot take images of 32x32. Choose",
        ),
        (
            {"model": {"backbone": {"name": "resnet18", "stride_at": "1x1"}}},
            "model.backbone",
            "stride_at: 1x1 needs a network with bottlenecks: resnet50, resnet101 or resnet152",
        ),
    ],
)
def test_each_mistake(document: dict[str, Any], path: str, message: str) -> None:
    found = problems(document)
    assert list(found) == [path]
    assert message in found[path]


@pytest.mark.parametrize(
    ("document", "path", "message"),
    [
        (
            {"freeze": {"parts": ["feature"]}},
            "freeze.parts[0]",
            "got \"feature\" (did you mean 'features'?; allowed: features, reduction, ",
        ),
        ({"freeze": {"parts": []}}, "freeze.parts", "must not be empty"),
        (
            {"freeze": {"parts": ["features", "reduction", "pooling", "classifier"]}},
            "",
            "none is trained",
        ),
        (
            {
                "freeze": {"parts": ["features", "reduction"]},
                "optim": {"lr_factors": {"pooling": 0, "classifier": 0}},
            },
            "",
            "leave nothing to train",
        ),
        (
            {"progressive": [{"from_epoch": 0, "size": 1}]},
            "progressive[0].size",
            "got 1 (allowed: >= 4 and <= 2048)",
        ),
        (
            {"progressive": [{"from_epoch": 0, "size": 9, "siz": 9}]},
            "progressive[0].siz",
            "unknown key (did you mean 'size'?)",
        ),
        ({"progressive": [{"size": 9}]}, "progressive[0].from_epoch", "is required and not given"),
        ({"progressive": [3]}, "progressive[0]", "got 3 (expected a mapping)"),
        ({"images": {"std": [0]}}, "images.std[0]", "got 0 (allowed: >= 0.0001 and <= 10)"),
        ({"images": {"mean": [1, "x"]}}, "images.mean[1]", 'got "x" (expected a number)'),
        ({"ema": 3}, "ema", "got 3 (expected a mapping or null)"),
        ({"ema": {"decay": 2}}, "ema.decay", "got 2 (allowed: > 0 and < 1)"),
        (
            {"augment": {"crop": {"min_area": 0.5}}},
            "augment.crop.min_area",
            "it belongs to name: random_resized_crop",
        ),
        ({"data": {"image_size": 32}}, "data.image_size", "is no longer here (now: images.size)"),
        ({"data": {"augment": False}}, "data.augment", "augment.crop=centre_crop"),
    ],
)
def test_mistakes_in_lists_and_options(document: dict[str, Any], path: str, message: str) -> None:
    found = problems(document)
    assert list(found) == [path]
    assert message in found[path]


def test_lists_of_mappings_and_options_with_their_defaults() -> None:
    config = validate(
        TrainConfig, {"progressive": [{"from_epoch": 0, "size": 6}], "ema": {}, "mix": {}}, "x"
    )
    assert config.train_image_size(3) == 6
    assert config.ema == EmaConfig()
    assert config.mix == MixConfig()


@pytest.mark.parametrize(
    ("overrides", "crop"),
    [
        ([], {"name": "pad_crop", "padding": 2}),
        (["augment.crop.padding=3"], {"name": "pad_crop", "padding": 3}),
        (["augment.crop=random_crop"], {"name": "random_crop"}),
        (["augment.crop=pad_crop"], {"name": "pad_crop", "padding": 4}),
        (["augment.flip=0"], {"name": "pad_crop", "padding": 2}),
    ],
)
def test_a_crop_without_a_name_is_the_usual_one_of_the_source(
    overrides: list[str], crop: dict[str, Any]
) -> None:
    document = apply_overrides({"data": "fashion_mnist"}, overrides)
    config = validate(TrainConfig, document, "x")
    assert config.augment.crop.model_dump() == crop
    assert config.images.size == 28
    assert config.augment.flip == (0.0 if overrides == ["augment.flip=0"] else 0.5)


def test_every_problem_at_once() -> None:
    found = problems(
        {
            "seed": True,
            "epochs": 0,
            "model": {"head": {"pooling": {"name": "isqrt", "num_iter": 3}}, "x": 1},
            "data": {"name": "digitss"},
        }
    )
    assert set(found) == {"seed", "epochs", "model.head.pooling.num_iter", "model.x", "data.name"}


def test_direct_construction_refuses_booleans_too() -> None:
    with pytest.raises(ValueError, match="'lr' wants a number, got True"):
        AdamWConfig(name="adamw", lr=True)


def test_flatten_gives_leaves_under_dotted_keys() -> None:
    flat = flatten(TrainConfig())
    assert flat["model.head.pooling.name"] == "isqrt"
    assert flat["model.backbone.blocks"] == "[1, 1]"
    assert flat["checkpoint.every_steps"] is None
    assert flat["optim.lr"] == 0.1
    assert all(isinstance(v, str | int | float | bool | None) for v in flat.values())


def test_the_resolved_config_validates_to_itself() -> None:
    config = TrainConfig(seed=3)
    assert validate(TrainConfig, config.model_dump(mode="json"), "x") == config


def test_a_map_of_one_position_is_enough_to_average() -> None:
    backbone = {"blocks": [1, 1, 1, 1]}
    validate(TrainConfig, {"model": {"backbone": backbone, "head": {"pooling": "gap"}}}, "x")
    validate(TrainConfig, {"model": {"backbone": {**backbone, "last_stride": 1}}}, "x")


@pytest.mark.parametrize(
    ("head", "setting"),
    [
        ({"reduced_channels": None, "activation": "relu6"}, "model.head.activation"),
        ({"pooling": {"name": "dropcov", "rate": 0.2}}, "model.head.pooling.rate"),
        ({"pooling": {"name": "cross_cov", "adaptive": True, "rate": 0.2}}, "head.pooling.rate"),
        ({"pooling": {"name": "dropcov", "adaptive": False, "rate": 0.2}}, None),
        ({"pooling": {"name": "cross_cov", "rate": 0.2}}, None),
        ({"activation": "relu6"}, None),
        ({}, None),
    ],
)
def test_settings_without_effect_are_named(head: dict[str, Any], setting: str | None) -> None:
    found = validate(TrainConfig, {"model": {"head": head}}, "x").model.settings_without_effect()
    assert len(found) == (setting is not None)
    assert setting is None or setting in found[0]
