"""Recipes: files that build on each other, named networks, and every recipe that comes along."""

from pathlib import Path

import pytest

from orchestrator.jobs.errors import NotFoundError
from orchestrator.jobs.origins import origins
from orchestrator.jobs.plan import TO_BE_GIVEN, Request, plan_train
from orchestrator.jobs.recipes import BASE, load_recipe, merge, recipe_files
from orchestrator.results.recipe_page import resolved_page, to_be_given
from workloads.config.document import load_document
from workloads.config.errors import ConfigError
from workloads.config.train import TrainConfig
from workloads.config.zoo import load_zoo

LOOK = Request(to_be_given=True)
RECIPES = sorted(recipe_files("train"))


def write(folder: Path, **files: str) -> Path:
    """Write files by name and return the first."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{next(iter(files))}.yaml"


def plan(path: Path, *overrides: str):
    return plan_train(str(path), overrides, LOOK)


# --- every recipe that comes with gcpctl ---------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_complete_and_short_when_smoked(name):
    spec = plan_train(name, [], LOOK).spec
    assert spec.description
    assert spec.study != "default"
    smoke = plan_train(name, [], Request(to_be_given=True, smoke=True))
    assert (smoke.config.epochs, smoke.config.steps_per_epoch, smoke.spec.study) == (1, 4, "smoke")


def test_every_base_is_built_on_and_is_no_recipe():
    used = {layer.name for name in RECIPES for layer in load_recipe(name, "train").layers[1:]}
    assert set(recipe_files(BASE)) <= used
    assert not set(recipe_files(BASE)) & set(RECIPES)


def test_a_base_cannot_be_submitted():
    name = min(recipe_files(BASE))
    with pytest.raises(NotFoundError, match="what recipes build on"):
        load_recipe(name, "train")


# --- building on each other ----------------------------------------------------------------------


def test_layers_are_laid_over_each_other_however_deep(tmp_path):
    path = write(
        tmp_path,
        top="extends: middle.yaml\noptim: {lr: 0.3}\n",
        middle="extends: bottom.yaml\noptim: {momentum: 0.5}\nepochs: 7\n",
        bottom="study: deep\noptim: {name: sgd, lr: 0.1, momentum: 0.9}\nepochs: 3\n",
    )
    found = plan(path)
    optim = found.config.optim
    assert (optim.lr, optim.momentum, found.config.epochs) == (0.3, 0.5, 7)
    assert found.spec.study == "deep"
    assert [layer.name for layer in found.recipe.layers] == ["top", "middle", "bottom"]


def test_a_circle_is_named(tmp_path):
    path = write(tmp_path, a="extends: b.yaml\n", b="extends: c.yaml\n", c="extends: a.yaml\n")
    with pytest.raises(ConfigError, match="a -> b -> c -> a"):
        load_recipe(str(path), "train")


@pytest.mark.parametrize("base", ["digits_resnet_isqt", "[1]", "3"])
def test_a_base_that_is_not_there(tmp_path, base):
    path = write(tmp_path, mine=f"extends: {base}\n")
    with pytest.raises(ConfigError, match="extends: there is no recipe"):
        load_recipe(str(path), "train")


def test_what_a_base_reproduces_a_change_of_it_does_not(tmp_path):
    path = write(tmp_path, mine="extends: other.yaml\n", other="published: {table: T, top1: 75}\n")
    assert plan(path).spec.published is None
    assert plan(tmp_path / "other.yaml").spec.published.top1 == 75.0


def test_a_bare_name_is_short_for_a_mapping_in_a_merge():
    assert merge({"d": "x"}, {"d": {"path": "/p"}}) == {"d": {"name": "x", "path": "/p"}}
    assert merge({"d": {"name": "x", "a": 1}}, {"d": "x"}) == {"d": {"name": "x", "a": 1}}
    assert merge({"d": {"name": "x", "a": 1}}, {"d": "y"}) == {"d": "y"}
    assert merge({"d": "x"}, {"d": {"name": "y"}}) == {"d": {"name": "y"}}


# --- named networks ------------------------------------------------------------------------------


def test_a_network_stands_for_its_model_and_image_size(tmp_path):
    path = write(
        tmp_path,
        mine="network: inception_v3_isqrt_256\ndata: {name: image_folder}\n"
        "model: {head: {dropout: 0.25}}\n",
    )
    config = plan(path).config
    named = load_zoo()["inception_v3_isqrt_256"].model
    assert config.model.backbone == named.backbone
    assert config.model.head.pooling == named.head.pooling
    assert config.model.head.dropout == 0.25
    assert (config.images.size, config.images.resize) == (299, 342)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("data: image_folder\nimages: {size: 320}\n", 320),
        ("data: {name: image_folder}\nimages: {mean: [0.5, 0.5, 0.5]}\n", 299),
        ("data: cifar10\nimages: {size: 96}\n", 96),
    ],
)
def test_a_size_that_is_given_stays(tmp_path, text, size):
    path = write(tmp_path, mine=f"network: inception_v3_gap\n{text}")
    assert plan(path).config.images.size == size


def test_small_images_keep_their_own_size(tmp_path):
    path = write(tmp_path, mine="network: small_resnet_isqrt_32\ndata: fashion_mnist\n")
    assert plan(path).config.images.size == 28


def test_another_network_on_the_command_line_replaces_the_whole_model(tmp_path):
    path = write(
        tmp_path,
        mine="network: resnet50_isqrt_256\ndata: image_folder\nmodel: {head: {dropout: 0.5}}\n",
    )
    config = plan(path, "model.head.pooling.grid=2", "network=inception_v3_gap").config
    assert config.model.backbone.name == "inception_v3"
    assert config.model.head.pooling.model_dump() == {"name": "gap", "grid": 2}
    assert config.model.head.dropout == load_zoo()["inception_v3_gap"].model.head.dropout
    assert config.images.size == 299


def test_a_network_in_a_file_replaces_that_of_its_base(tmp_path):
    path = write(
        tmp_path,
        mine="extends: other.yaml\nnetwork: vgg16_gap\n",
        other="network: resnet50_isqrt_256\ndata: image_folder\n",
    )
    assert plan(path).config.model == load_zoo()["vgg16_gap"].model


def test_a_network_that_is_not_there_names_the_closest(tmp_path):
    path = write(tmp_path, mine="network: resnet50_isqrt_265\n")
    with pytest.raises(ConfigError, match=r"network: .*did you mean 'resnet50_isqrt_256'"):
        plan(path)
    with pytest.raises(ConfigError, match="command line"):
        plan_train("digits_resnet_isqrt", ["network=resnet5"], Request())


# --- what is said of a recipe --------------------------------------------------------------------


def test_each_value_knows_who_said_it(tmp_path):
    path = write(
        tmp_path,
        top="extends: bottom.yaml\nnetwork: resnet50_isqrt_256\n"
        "model: {head: {pooling: {num_iters: 3}}}\noptim: adamw\n",
        bottom="data: cifar10\noptim: {name: sgd, lr: 0.2, weight_decay: 0.1}\n"
        "images: {size: 64}\nschedule: {name: linear}\n",
    )
    said = origins(plan(path, "epochs=9", "schedule.warmup_epochs=2"))
    assert said["optim.name"] == "top"
    assert "optim.lr" not in said, "the base's sgd is gone, and its rate with it"
    assert "optim.weight_decay" not in said
    assert said["model.backbone.name"] == "network resnet50_isqrt_256"
    assert said["model.head.pooling.num_iters"] == "top"
    assert said["epochs"] == said["schedule.warmup_epochs"] == "command line"
    assert said["schedule.name"] == said["images.size"] == said["data.name"] == "bottom"
    assert said["data.path"] == "to be given"
    assert said["augment.crop.name"] == said["images.mean"] == "usual for cifar10"
    assert "seed" not in said


def test_the_size_of_a_network_is_said_by_it(tmp_path):
    path = write(tmp_path, mine="network: inception_v3_gap\ndata: image_folder\n")
    assert origins(plan(path))["images.size"] == "network inception_v3_gap"
    other = origins(plan(path, "network=resnet18_gap"))
    assert other["images.size"] == other["model.backbone.name"] == "network resnet18_gap"


@pytest.mark.parametrize("name", RECIPES[::9])
def test_the_resolved_page_is_the_recipe_again(name, tmp_path):
    """What is printed, saved to a file and submitted, asks for the same training."""
    first = plan_train(name, [], LOOK)
    page = resolved_page(first)
    path = tmp_path / "again.yaml"
    path.write_text(page)
    again = plan_train(str(path), [], Request())
    assert again.config == first.config
    assert again.spec.resources == first.spec.resources
    assert "\nlog_every_steps: 10\n" in page, "a default has no remark"
    assert "builds on" in page or "extends" not in first.recipe.layers[0].text


def test_paths_to_be_given_are_named_and_stay_out_of_jobs(tmp_path):
    path = write(tmp_path, mine="data: image_folder\ninit: {classifier: new}\n")
    assert to_be_given(plan(path)) == ["data.path", "init.weights"]
    given = plan(path, "data.path=/x", "init.weights=/w")
    assert to_be_given(given) == []
    with pytest.raises(ConfigError) as caught:
        plan_train(str(path), [], Request())
    assert "data.path: is required" in str(caught.value)
    assert "init.weights: is required" in str(caught.value)
    assert TO_BE_GIVEN not in str(given.spec.config)


def test_published_results_are_one_sentence():
    path = (
        next(iter(recipe_files("train").values()))[1].parent / "imagenet_resnet50_isqrt_lrfast.yaml"
    )
    said = load_document(path.read_text(), "x")["published"]
    text = plan_train(str(path), [], LOOK).spec.published.describe()
    assert f"top-1 {said['top1']:g} %" in text
    assert said["table"] in text


def test_the_default_config_needs_no_recipe(tmp_path):
    assert plan(write(tmp_path, mine="study: mine\n")).config == TrainConfig()
