"""The named networks, and what was published for them."""

import csv
from collections import Counter

import pytest
import torch

from workloads.config.zoo import load_zoo
from workloads.models import published
from workloads.models.answers import count_networks, describe_network
from workloads.models.backbones import BACKBONES
from workloads.models.errors import ModelError
from workloads.models.stages import backbone_stages
from workloads.pooling.registry import POOLINGS

ZOO = load_zoo()
PAIRS = {(row.model, row.pooling) for row in published.read_published()}


def request(name, **changes):
    entry = ZOO[name]
    return {
        "name": name,
        "model": entry.model.model_dump(mode="json"),
        "image_size": entry.image_size,
        "in_channels": entry.in_channels,
        "num_classes": entry.num_classes,
        **changes,
    }


def count(name, **changes):
    return count_networks({"networks": [request(name, **changes)]})["counts"][0]


# --- config --------------------------------------------------------------------------------------


def test_every_name_is_told_by_its_config():
    for name, entry in ZOO.items():
        assert name == entry.name
        assert name.startswith(entry.model.backbone.name)
        if name.rpartition("_")[2].isdigit() and not name.startswith("alexnet_mpn_eig"):
            assert name.endswith(f"_{entry.model.head.reduced_channels}")


def test_no_two_names_are_the_same_network():
    networks = Counter((e.model.model_dump_json(), e.image_size) for e in ZOO.values())
    assert [network for network, times in networks.items() if times > 1] == []


@pytest.mark.parametrize(
    ("name", "positions"),
    [
        ("resnet50_gap", 49),
        ("resnet50_isqrt_256", 196),
        ("se_resnet50_isqrt_128", 196),
        ("mobilenet_v2_isqrt_256", 49),
        ("shufflenet_v2_x1_0_isqrt_256", 49),
        ("vgg16_bn_isqrt_256", 196),
        ("vgg16_bcnn", 784),
        ("alexnet_mpn_eig_256", 169),
        ("densenet121_isqrt_256", 49),
        ("inception_v3_isqrt_256", 64),
        ("deit_small_dropcov", 196),
        ("sot_small_dropcov", 196),
    ],
)
def test_positions_are_those_of_the_papers(name, positions):
    entry = ZOO[name]
    assert entry.model.num_positions(entry.image_size) == positions


@pytest.mark.parametrize(
    ("part", "activation"),
    [("resnet", "relu"), ("mobilenet", "relu6"), ("shufflenet", "relu6"), ("vgg", "relu")],
)
def test_the_activation_of_the_reduction_is_the_backbones_own(part, activation):
    found = {
        entry.model.head.activation
        for name, entry in ZOO.items()
        if part in name and entry.model.head.reduced_channels
    }
    assert found == {activation}


@pytest.mark.parametrize(
    ("name", "published_options"),
    [
        ("resnet50_isqrt_256", {"dropout": 0.0, "classifier_init": "default", "hidden": ()}),
        ("resnet50_mpn_eig_256", {"stride_at": "1x1", "last_stride": 1}),
        ("resnet50_dropcov_128", {"stride_at": "3x3", "last_stride": 1}),
        ("se_resnet50_dropcov_128", {"variant": "seed", "last_stride": 1}),
        ("mobilenet_v2_gap", {"dropout": 0.2, "classifier_init": "normal"}),
        ("mobilenet_v2_isqrt_256", {"dropout": 0.2, "classifier_init": "normal"}),
        ("shufflenet_v2_x1_0_isqrt_256", {"dropout": 0.0, "classifier_init": "default"}),
        ("vgg16_bn_isqrt_256", {"dropout": 0.5, "classifier_init": "normal"}),
        ("alexnet_mpn_eig_256", {"dropout": 0.5, "hidden": (4096, 4096), "reduced_channels": None}),
        ("inception_v3_gap", {"dropout": 0.5}),
        ("deit_small_dropcov", {"drop_path": 0.1, "adaptive": True, "activation": "none"}),
        ("sot_small_dropcov", {"drop_path": 0.1, "adaptive": False, "rate": 0.2}),
        ("sot_base_svpn", {"variant": "sot", "head_width": 38, "normaliser": "svpn"}),
    ],
)
def test_options_that_change_no_count_are_the_papers(name, published_options):
    model = ZOO[name].model
    options = {
        **model.head.model_dump(),
        **model.head.pooling.model_dump(exclude={"dropout"}),
        **model.backbone.model_dump(),
    }
    assert {key: options[key] for key in published_options} == published_options


# --- published results ---------------------------------------------------------------------------


def test_every_published_pair_is_ours_or_left_out_for_a_reason():
    assert set(published.PUBLISHED) | set(published.NOT_COVERED) == PAIRS
    assert not set(published.PUBLISHED) & set(published.NOT_COVERED)
    assert all(published.NOT_COVERED.values())


def test_every_published_name_is_in_the_zoo():
    assert set(published.PUBLISHED.values()) <= set(ZOO)


def test_the_rows_are_read_as_they_stand():
    with (published._FILE).open(newline="", encoding="utf-8") as file:
        raw = list(csv.reader(file))
    rows = published.read_published()
    assert len(rows) == len(raw) - 1 == 110
    for cells, row in zip(raw[1:], rows, strict=True):
        read = (row.top1, row.top5, row.params_m, row.gflops, row.epochs)
        assert read == tuple(float(cell) if cell else None for cell in cells[3:8])
        assert [row.model, row.pooling, row.lr_mode, row.source] == [*cells[:3], cells[8]]


@pytest.mark.parametrize(
    ("name", "top1", "lr_mode"),
    [
        ("resnet50_isqrt_256", 78.56, "LRnorm"),
        ("resnet18_isqrt_128", 74.64, "step-30"),
        ("resnet50_mpn_eig_256", 77.73, ""),
        ("resnet101_dropcov_128", 79.51, "LRnorm"),
        ("sot_small_dropcov", 82.40, "cosine-300"),
    ],
)
def test_the_best_result_is_one_crop_of_the_final_run(name, top1, lr_mode):
    best = published.best_of(published.results_of(name))
    assert (best.top1, best.lr_mode) == (top1, lr_mode)


def test_nothing_is_published_for_other_names():
    assert published.best_of(published.results_of("resnet50_isqrt_64")) is None


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("resnet50_dropcov_128", ["D1", "D2", "D6"]),
        ("resnet50_dropcov_256", ["D1", "D6"]),
        ("resnet50_isqrt_128", ["D2", "D15"]),
        ("resnet50_isqrt_256", []),
        ("sot_small_dropcov", ["D8", "D10"]),
        ("sot_small_svpn", []),
        ("resnet18_gap", []),
        ("densenet121_isqrt_256", []),
    ],
)
def test_notes_stand_where_they_apply(name, ids):
    assert [note.id for note in published.notes_for(ZOO[name].model)] == ids


def test_every_note_concerns_some_network():
    for note in published.NOTES:
        assert any(note in published.notes_for(entry.model) for entry in ZOO.values()), note


# --- counts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18_gap", 11_689_512),
        ("resnet18_isqrt_64", 13_290_408),
        ("resnet50_isqrt_160", 36_717_032),
        ("resnet50_dropcov_128", 32_027_435),
        ("resnet101_isqrt_256", 75_921_960),
        ("resnet152_mpn_eig_256", 91_565_608),
        ("mobilenet_v2_isqrt_256", 35_449_064),
        ("shufflenet_v2_x1_0_gap", 2_278_604),
        ("vgg16_bn_gap", 138_365_992),
        ("vgg16_bn_isqrt_256", 170_479_144),
        ("deit_small", 22_050_664),
    ],
)
def test_parameters_are_the_published_ones(name, parameters):
    assert count(name)["parameters"] == parameters


@pytest.mark.parametrize("name", ["vgg16_bn_bcnn", "sot_base_svpn", "inception_v3_isqrt_256"])
def test_positions_of_the_config_are_those_of_the_network(name):
    entry = ZOO[name]
    assert count(name)["positions"] == entry.model.num_positions(entry.image_size)


def test_every_backbone_and_pooling_is_registered():
    for entry in ZOO.values():
        assert entry.model.backbone.name in BACKBONES
        assert entry.model.head.pooling.name in POOLINGS


@pytest.mark.parametrize(
    "name", ["resnet50_isqrt_256", "vgg16_cbp", "alexnet_mpn_eig_256", "swin_tiny_dropcov"]
)
def test_a_description_adds_up(name):
    found = describe_network(request(name))
    stages = found["stages"]
    assert sum(stage["parameters"] for stage in stages) == found["parameters"]
    attention = found["macs_by_part"].get("attention", 0)
    assert sum(stage["macs"] for stage in stages) == found["macs"] - attention
    assert sum(found["parameters_by_part"].values()) == found["parameters"]
    assert stages[-1]["shape"] == (1000,)
    assert found["vector_width"] in [stage["shape"][0] for stage in stages]


def test_a_description_says_where_pooling_attaches():
    found = describe_network(request("resnet18_isqrt_256"))
    assert found["attach"]["after"] == "layer4"
    assert found["attach"]["shape"] == (512, 14, 14)
    assert found["positions"] == 196
    assert (found["vector_width"], found["vector_order"]) == (32896, "upper_rows")
    assert [stage["name"] for stage in found["stages"]] == [
        "conv1 - maxpool", "layer1", "layer2", "layer3", "layer4",
        "reduction", "pooling", "classifier",
    ]  # fmt: skip


def test_the_class_token_alone_has_no_vector():
    found = describe_network(request("deit_small"))
    assert (found["positions"], found["vector_width"], found["vector_order"]) == (0, 0, None)
    assert found["stages"][-1]["name"] == "token_classifier"


def test_parameters_that_stand_in_no_layer_have_a_row():
    first = describe_network(request("deit_small"))["stages"][0]
    assert (first["name"], first["shape"]) == ("cls_token, pos_embed", ())
    assert first["parameters"] == 384 + 197 * 384


@pytest.mark.parametrize(
    ("name", "first", "last_layer"),
    [
        ("vgg16_isqrt_256", "features.0 - 4", "features.29"),
        ("mobilenet_v2_gap", "features.0", "features.18"),
        ("inception_v3_gap", "Conv2d_1a_3x3", "Mixed_7c"),
        ("densenet121_gap", "features.conv0 - pool0", "features.norm5"),
    ],
)
def test_a_table_of_stages_is_short_and_whole(name, first, last_layer):
    entry = ZOO[name]
    backbone = entry.model.backbone
    with torch.device("meta"):
        network = BACKBONES[backbone.name](in_channels=3, **backbone.model_dump(exclude={"name"}))
    stages, features = backbone_stages(network, image_size=entry.image_size, in_channels=3)
    assert stages[0].name == first
    assert stages[-1].last_layer == last_layer
    assert stages[-1].shape == tuple(features.shape[1:])
    assert len(stages) <= 12
    assert sum(s.parameters for s in stages) == sum(p.numel() for p in network.parameters())


def test_an_image_that_is_too_small_is_an_error_for_people():
    with pytest.raises(ModelError, match="cannot take images of 20 pixels") as caught:
        count("inception_v3_gap", image_size=20)
    assert "--image-size" in caught.value.hint


def test_one_position_has_no_covariance():
    backbone = {"name": "torchvision", "model": "efficientnet_b0"}
    model = ZOO["resnet18_isqrt_64"].model.model_dump(mode="json") | {"backbone": backbone}
    with pytest.raises(ModelError, match="makes one position of images of 2 pixels"):
        count("resnet18_isqrt_64", model=model, image_size=2)
