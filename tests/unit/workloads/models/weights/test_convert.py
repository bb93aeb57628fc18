"""Conversion: what is told from weights, what a person may say, what is refused."""

import os

import pytest
import torch
from torch import Tensor

from tests.unit.workloads.models.weights import published
from workloads import durable
from workloads.config.errors import ConfigError
from workloads.config.model import ModelConfig
from workloads.config.train import TrainConfig
from workloads.models.gcp_net import build_model
from workloads.models.weights.answers import convert_file
from workloads.models.weights.convert import convert, sort_inputs
from workloads.models.weights.errors import WeightsError
from workloads.models.weights.layouts import LAYOUTS, find_layout, rename_all
from workloads.models.weights.model_file import (
    ModelFile,
    load_model,
    read_model_file,
    save_model,
)
from workloads.training.loop import train
from workloads.worker.folder_context import FolderContext

SMALL = {
    "backbone": {"name": "small_resnet", "width": 4, "blocks": [1, 1]},
    "head": {"reduced_channels": 4, "pooling": {"name": "isqrt"}},
}


def small_state(**head) -> dict[str, Tensor]:
    config = ModelConfig.model_validate({**SMALL, "head": {**SMALL["head"], **head}})
    net = build_model(config, in_channels=1, num_classes=3)
    return published.randomise(net).state_dict()


@pytest.fixture
def small(tmp_path):
    torch.save(small_state(), tmp_path / "small.pth")
    return tmp_path / "small.pth"


def images(channels: int = 1) -> Tensor:
    return torch.randn(2, channels, 16, 16, generator=torch.Generator().manual_seed(3))


# --- what is told, what may be said --------------------------------------------------------------


def test_our_own_weights_tell_their_network(small):
    conversion = convert(small)
    assert conversion.layout == "gcpctl"
    assert conversion.model.config.backbone.model_dump() == {
        "name": "small_resnet",
        "width": 4,
        "blocks": (1, 1),
        "last_stride": 2,
    }
    assert (conversion.model.in_channels, conversion.model.num_classes) == (1, 3)
    assert conversion.renamed == {}
    assert any("isqrt" in line for line in conversion.assumed)


def test_overrides_change_what_weights_do_not_tell(small):
    model = convert(small, overrides=["model.head.pooling.num_iters=3"]).model
    assert model.config.head.pooling.num_iters == 3
    model = convert(small, overrides=["head.pooling=cov", "backbone.last_stride=1"]).model
    assert (model.config.head.pooling.name, model.config.backbone.last_stride) == ("cov", 1)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["head.reduced_channels=5"], ["head.reduction.0.weight: [4, 8, 1, 1] in the file, [5"]),
        (["backbone.width=8"], ["in 31 places", "and 21 more"]),
        (["backbone=resnet18"], ["features.conv1.weight: not in the file", "and "]),
        (["head.pooling=svpn"], ["head.pooling", "not in the file", "in 1 place"]),
    ],
)
def test_a_network_that_does_not_fit_is_refused_with_a_list(small, overrides, words):
    with pytest.raises(WeightsError) as caught:
        convert(small, overrides=overrides)
    assert all(word in str(caught.value) for word in words)
    assert len(str(caught.value).splitlines()) <= 12


def test_mistyped_overrides_and_names_are_refused(small):
    with pytest.raises(ConfigError, match="did you mean 'pooling'"):
        convert(small, overrides=["head.poling=cov"])
    with pytest.raises(WeightsError, match="did you mean 'resnet18_gap'"):
        convert(small, zoo_name="resnet18_gp")


def test_a_named_network_is_held_against_the_file(tmp_path):
    net = published.randomise(published.LayerReduceResNet("resnet18"))
    torch.save(net.state_dict(), tmp_path / "net.pth")
    with pytest.raises(WeightsError) as caught:
        convert(tmp_path / "net.pth", zoo_name="resnet18_isqrt_64")
    text = str(caught.value)
    assert "layer_reduce.weight (head.reduction.0.weight): [8, 512, 1, 1] in the file" in text
    assert "[64, 512, 1, 1] in the network" in text
    assert "fc.weight (head.classifier.weight): [5, 36] in the file, [5, 2080]" in text


def test_a_named_network_that_fits_sets_the_config(tmp_path):
    config = ModelConfig.model_validate(
        {
            "backbone": {"name": "resnet18", "last_stride": 1},
            "head": {"reduced_channels": 64, "pooling": {"name": "isqrt"}},
        }
    )
    torch.save(build_model(config, in_channels=3, num_classes=4).state_dict(), tmp_path / "a.pth")
    assert convert(tmp_path / "a.pth").model.config.backbone.last_stride == 2  # not to be seen
    model = convert(tmp_path / "a.pth", zoo_name="resnet18_isqrt_64").model
    assert (model.config, model.num_classes) == (config, 4)


def test_names_of_no_layout_are_refused_with_the_closest(tmp_path):
    state = {"conv1.weight": torch.ones(4, 3, 3, 3), "layer1.0.conv1.weight": torch.ones(4)}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError) as caught:
        convert(tmp_path / "a.pth")
    assert "closest: torchvision" in str(caught.value)
    assert "fc.weight or classifier.weight" in str(caught.value)
    assert "layer1.0.conv1.weight" in str(caught.value)


def test_weights_without_a_place_are_refused(small, tmp_path):
    torch.save({**torch.load(small), "features.extra.weight": torch.ones(2)}, tmp_path / "b.pth")
    with pytest.raises(WeightsError, match=r"features.extra.weight: \[2\] in the file, not in"):
        convert(tmp_path / "b.pth")


def test_a_distilled_transformer_and_an_unknown_backbone_say_what_they_are(tmp_path):
    names = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")
    state = {name: torch.ones(1, 1, 1, 1) for name in (*names, "dist_token")}
    torch.save({**state, "head.weight": torch.ones(2, 2)}, tmp_path / "deit.pth")
    with pytest.raises(WeightsError, match="distillation token"):
        convert(tmp_path / "deit.pth")
    state = {
        "features.stem.weight": torch.ones(4, 3, 3, 3),
        "head.classifier.weight": torch.ones(2, 4),
    }
    torch.save({**state, "head.classifier.bias": torch.ones(2)}, tmp_path / "own.pth")
    with pytest.raises(WeightsError, match=r"do not tell backbone and head\.pooling"):
        convert(tmp_path / "own.pth")


def test_two_weights_never_share_a_name():
    layout = next(layout for layout in LAYOUTS if layout.name.startswith("fast-MPN-COV or"))
    with pytest.raises(WeightsError, match=r"both become head\.reduction\.0\.weight"):
        rename_all(layout, {"layer_reduce.weight": 1, "Layer_Reduce.weight": 2})


def test_every_layout_is_the_first_that_fits_its_own_needs():
    for layout in LAYOUTS:
        assert find_layout([need.split("|")[0] for need in layout.needs], "file") is layout


def test_half_precision_is_widened_and_double_kept(tmp_path):
    state = small_state()
    for dtype, expected in ((torch.float16, torch.float32), (torch.float64, torch.float64)):
        typed = {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}
        torch.save(typed, tmp_path / "a.pth")
        save_model(convert(tmp_path / "a.pth").model, tmp_path / "a.gcpnet", force=True)
        weight = load_model(tmp_path / "a.gcpnet").head.classifier.weight
        assert weight.dtype == expected
        assert torch.equal(weight, typed["head.classifier.weight"].to(expected))


# --- vector order --------------------------------------------------------------------------------


def test_columns_of_the_other_triangle_order_are_kept_or_sorted(small):
    state = torch.load(small)
    maps = images()
    as_rows = convert(small).model.build()
    by_columns = convert(small, vector_order="upper_columns").model
    sorted_ = convert(small, vector_order="upper_columns", reorder=True).model
    assert (by_columns.vector_order, sorted_.vector_order) == ("upper_columns", "upper_rows")
    with torch.no_grad():
        features = as_rows.features(maps)
        vectors = published.triangle(
            published.isqrt(as_rows.head.reduction(features).flatten(2)), "upper_columns"
        )
        expected = vectors @ state["head.classifier.weight"].T + state["head.classifier.bias"]
        for model in (by_columns, sorted_):
            torch.testing.assert_close(model.build()(maps), expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(as_rows(maps), expected, rtol=1e-2)


def test_sorting_inputs_is_a_permutation_that_undoes_the_order():
    matrix = torch.randn(1, 5, 5)
    matrix = matrix + matrix.mT
    weight = torch.randn(2, 15)
    by_columns = published.triangle(matrix, "upper_columns") @ weight.T
    by_rows = published.triangle(matrix) @ sort_inputs(weight, 5, "upper_columns").T
    torch.testing.assert_close(by_rows, by_columns)
    assert torch.equal(sort_inputs(weight, 5, "upper_rows"), weight)


def test_what_is_no_triangle_is_not_sorted(tmp_path):
    state = small_state(pooling={"name": "gap"})
    torch.save(state, tmp_path / "gap.pth")
    with pytest.raises(WeightsError, match="--reorder sorts a triangle"):
        convert(tmp_path / "gap.pth", reorder=True)
    with pytest.raises(ConfigError, match="vector"):
        convert(tmp_path / "gap.pth", vector_order="upper_columns")


# --- what a training of ours leaves --------------------------------------------------------------


def test_a_trained_job_becomes_a_model_file(tmp_path):
    config = TrainConfig.model_validate(
        {
            "epochs": 1,
            "steps_per_epoch": 2,
            "global_batch_size": 64,
            "schedule": {"name": "cosine", "warmup_epochs": 0},
            "model": {
                "backbone": {"name": "small_resnet", "width": 4, "blocks": [1], "last_stride": 1},
                "head": {"reduced_channels": 4, "pooling": {"name": "isqrt", "num_iters": 3}},
            },
        }
    )
    job = tmp_path / "job"
    context = FolderContext(job, attempt=1, device=torch.device("cpu"), keep_checkpoints=1)
    train(config, context)
    step = next((job / "checkpoints").glob("step-*"))

    for source in (job, step, step / "state.pt"):
        conversion = convert(source)
        assert conversion.model.config == config.model
        assert conversion.model.classes == tuple(str(digit) for digit in range(10))
        assert conversion.model.image_size == 8
        assert conversion.model.source["step"] == 2
        assert conversion.assumed == ()
    save_model(conversion.model, tmp_path / "job.gcpnet")
    assert convert(tmp_path / "job.gcpnet").model.image_size == 8
    saved = torch.load(step / "state.pt")["model"]
    assert all(
        torch.equal(tensor, saved[name])
        for name, tensor in load_model(tmp_path / "job.gcpnet").state_dict().items()
    )


# --- model files ---------------------------------------------------------------------------------


def test_a_model_file_converts_to_itself_and_takes_overrides(small, tmp_path):
    model = convert(small, overrides=["head.pooling.num_iters=7"]).model
    save_model(model, tmp_path / "a.gcpnet")
    again = convert(tmp_path / "a.gcpnet").model
    assert (again.config, again.source) == (model.config, model.source)
    changed = convert(tmp_path / "a.gcpnet", overrides=["head.pooling.num_iters=2"]).model
    assert changed.config.head.pooling.num_iters == 2


def test_a_model_file_is_plain_data_and_keeps_everything(small, tmp_path):
    save_model(convert(small).model, tmp_path / "a.gcpnet")
    entries = torch.load(tmp_path / "a.gcpnet", weights_only=True)
    assert (entries["format"], entries["version"]) == ("gcpctl-model", 1)
    assert entries["vector_order"] == "upper_rows"
    assert entries["source"]["file"] == "small.pth"
    assert len(entries["source"]["sha256"]) == 64
    network = load_model(tmp_path / "a.gcpnet")
    assert not network.training
    assert network(images()).shape == (2, 3)


def test_loading_leaves_the_programs_random_numbers_alone(small, tmp_path):
    save_model(convert(small).model, tmp_path / "a.gcpnet")
    before = torch.get_rng_state()
    load_model(tmp_path / "a.gcpnet")
    assert torch.equal(torch.get_rng_state(), before)


TAMPERED = {
    "newer": ({"version": 2}, "has format 2, this gcpctl reads format 1"),
    "order": ({"vector_order": "upper_columns"}, "in the order upper_columns, its config says"),
    "weights": ({"state": {"head.classifier.bias": torch.ones(3)}}, "do not fit the network"),
    "config": ({"model": {"backbone": {"name": "resnet17"}}}, "config cannot be used"),
    "width": ({"num_classes": 4}, r"head.classifier.weight: \[3, 10\] in the file, \[4, 10\]"),
    "another file": ({"format": "x"}, "gcpctl model convert"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_model_file_whose_parts_do_not_fit_is_refused(name, small, tmp_path):
    change, words = TAMPERED[name]
    save_model(convert(small).model, tmp_path / "a.gcpnet")
    entries = {**torch.load(tmp_path / "a.gcpnet"), **change}
    torch.save(entries, tmp_path / "b.gcpnet")
    with pytest.raises(WeightsError, match=words):
        load_model(tmp_path / "b.gcpnet")


def test_a_file_is_written_over_only_by_force_and_never_half(small, tmp_path, monkeypatch):
    target = tmp_path / "a.gcpnet"
    model = convert(small).model
    save_model(model, target)
    with pytest.raises(WeightsError, match="--force") as caught:
        save_model(model, target)
    assert caught.value.exit_code == 6
    before = target.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "sync", full)
    with pytest.raises(OSError, match="No space"):
        save_model(model, target, force=True)
    assert target.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gcpnet", "small.pth"]


def test_a_missing_folder_or_file_is_said(tmp_path, small):
    model = convert(small).model
    with pytest.raises(WeightsError, match="there is no folder"):
        save_model(model, tmp_path / "no" / "a.gcpnet")
    with pytest.raises(WeightsError, match="is a folder"):
        save_model(model, tmp_path)
    with pytest.raises(WeightsError, match="there is no file"):
        read_model_file(tmp_path / "none")


def test_a_device_or_pipe_is_not_replaced_by_a_file(tmp_path, small):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(WeightsError, match="not a regular file"):
        save_model(convert(small).model, pipe, force=True)
    assert pipe.is_fifo()


def test_a_full_disk_is_said_with_the_file(tmp_path, small, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "sync", full)
    request = {"file": str(small), "output": str(tmp_path / "a.gcpnet"), "zoo_name": None}
    request |= {"overrides": [], "vector_order": None, "reorder": False}
    with pytest.raises(WeightsError, match=r"a\.gcpnet: No space left on device"):
        convert_file({**request, "force": False, "dry_run": False})


def test_class_names_come_with_a_model_file(small, tmp_path):
    model = convert(small).model
    named = ModelFile(**{**vars(model), "classes": ("a", "b", "c")})
    save_model(named, tmp_path / "a.gcpnet")
    assert read_model_file(tmp_path / "a.gcpnet").classes == ("a", "b", "c")
