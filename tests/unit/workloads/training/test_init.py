"""Weights to begin with: which parts are taken from which file, and what is refused."""

import re

import pytest
import torch
from torch import nn

from tests.unit.workloads.models.weights import published
from workloads.config.model import ModelConfig
from workloads.config.train import InitConfig
from workloads.models.gcp_net import GCPNet, build_model
from workloads.models.weights.errors import WeightsError
from workloads.models.weights.model_file import ModelFile, save_model
from workloads.training.init import load_initial_weights
from workloads.training.parts import part_of

CLASSES = ["ant", "bee", "cat", "dog", "eel"]
assert len(CLASSES) == published.CLASSES


def config_of(backbone="small_resnet", **head):
    if isinstance(backbone, str):
        backbone = {"name": backbone}
        if backbone["name"] == "small_resnet":
            backbone |= {"width": 4, "blocks": [1]}
    return ModelConfig.model_validate(
        {"backbone": backbone, "head": {"reduced_channels": 8, **head}}
    )


def network(config, num_classes=5, in_channels=3):
    torch.manual_seed(1)
    return build_model(config, in_channels=in_channels, num_classes=num_classes)


def drawn(config, num_classes=5, in_channels=3) -> GCPNet:
    """A network whose every weight and statistic was drawn anew."""
    return published.randomise(network(config, num_classes, in_channels), seed=7)


def begin(model, path, *, classifier="auto", classes=CLASSES):
    config = InitConfig(weights=str(path), classifier=classifier)
    return load_initial_weights(model, config, classes=classes)


def parts_that_changed(before, model):
    changed, same = set(), set()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            (same if torch.equal(before[name], tensor) else changed).add(part_of(name))
    assert not changed & same - {"features"}, "a part is taken as a whole"
    return changed


def copy_of(model: nn.Module):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def save_checkpoint(path, model, *, classes=CLASSES, order="upper_rows", **more):
    """As a training saves it, as far as it is read here."""
    state = {
        "step": 3,
        "model": model.state_dict(),
        "identity": {"classes": list(classes), "vector order": order},
        "config": {},
        **more,
    }
    torch.save(state, path)
    return path


# --- backbones of GAP into GCP networks: the common case -----------------------------------------


@pytest.fixture(scope="module")
def torchvision_resnet18(tmp_path_factory):
    net = published.randomise(published.trunk("resnet18"))
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(net.state_dict(), path)
    return path, net


@pytest.mark.parametrize("classes", [CLASSES, ["a", "b", "c"]])
def test_torchvisions_features_under_a_fresh_gcp_head(torchvision_resnet18, classes):
    path, source = torchvision_resnet18
    model = network(config_of("resnet18"), num_classes=len(classes))
    before = copy_of(model)
    told = begin(model, path, classes=classes)
    assert parts_that_changed(before, model) == {"features"}
    assert "began with features of" in told
    assert "(torchvision)" in told
    assert "drawn anew: reduction (the file has none), classifier (" in told
    if len(classes) == 3:
        assert "classifier (the file's is for 5 classes, these data have 3)" in told
    x = torch.randn(2, 3, 64, 64)
    trunk = nn.Sequential(*list(source.children())[:-2]).eval()
    with torch.no_grad():
        torch.testing.assert_close(model.eval().features(x), trunk(x))


def test_torchvisions_whole_network_with_gap(torchvision_resnet18):
    path, source = torchvision_resnet18
    backbone = {"name": "resnet18", "last_stride": 2}
    config = config_of(backbone, pooling={"name": "gap"}, reduced_channels=None)
    for classifier in ("auto", "keep"):
        model = network(config)
        told = begin(model, path, classifier=classifier)
        assert told.startswith("began with features, classifier of ")
        x = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(model.eval()(x), source(x))


def test_another_depth_is_refused_and_the_files_is_named(torchvision_resnet18):
    path, _ = torchvision_resnet18
    model = network(config_of("resnet34"))
    before = copy_of(model)
    with pytest.raises(WeightsError) as caught:
        begin(model, path)
    assert "features.layer1.2.conv1.weight: not in the file, [64, 64, 3, 3]" in str(caught.value)
    assert "model.backbone.name=resnet18" in caught.value.hint
    assert parts_that_changed(before, model) == set()


def test_features_of_too_many_layers_are_refused(tmp_path):
    """All that the network has is there, and more: it is the beginning of another network."""
    deep = drawn(config_of({"name": "small_resnet", "width": 4, "blocks": [2]}))
    torch.save(deep.state_dict(), tmp_path / "deep.pth")
    with pytest.raises(WeightsError, match=r"stages\.0\.1\..*in the file, not in the network"):
        begin(network(config_of()), tmp_path / "deep.pth")


def test_other_channels_of_the_images_are_refused(tmp_path):
    torch.save(drawn(config_of()).state_dict(), tmp_path / "rgb.pth")
    lines = r"features\.stem\.0\.weight: \[4, 3, 3, 3\] in the file, \[4, 1, 3, 3\] in the network"
    with pytest.raises(WeightsError, match=lines) as caught:
        begin(network(config_of(), in_channels=1), tmp_path / "rgb.pth")
    assert caught.value.hint == "the file's network takes images of 3 channels, these have 1"


def test_features_alone_will_do(tmp_path, torchvision_resnet18):
    _, source = torchvision_resnet18
    bare = {n: t for n, t in source.state_dict().items() if not n.startswith("fc.")}
    old = {n: t for n, t in bare.items() if not n.endswith("num_batches_tracked")}
    for number, state in enumerate((bare, old, {f"features.{n}": t for n, t in bare.items()})):
        torch.save(state, tmp_path / f"{number}.pth")
        model = network(config_of("resnet18"))
        told = begin(model, tmp_path / f"{number}.pth")
        assert "(features alone)" in told
        assert torch.equal(
            model.features.layer4[1].bn2.running_var, source.layer4[1].bn2.running_var
        )
        with pytest.raises(WeightsError, match="cannot be kept: the file has none"):
            begin(model, tmp_path / f"{number}.pth", classifier="keep")


def test_generic_backbones_leave_out_what_they_do_not_have(tmp_path, torchvision_resnet18):
    path, source = torchvision_resnet18
    model = network(config_of({"name": "torchvision", "model": "resnet18", "node": "layer3"}))
    begin(model, path)
    assert torch.equal(model.features.layer3[1].conv2.weight, source.layer3[1].conv2.weight)
    timm = pytest.importorskip("timm")
    net = published.randomise(timm.create_model("resnet18", num_classes=5))
    torch.save(net.state_dict(), tmp_path / "timm.pth")
    model = network(config_of({"name": "timm", "model": "resnet18"}))
    begin(model, tmp_path / "timm.pth")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.eval().features(x), net.forward_features(x))


def test_deits_tokens(tmp_path):
    timm = pytest.importorskip("timm")
    name = "deit_tiny_patch16_224"
    net = published.randomise(timm.create_model(name, img_size=32, patch_size=8, num_classes=5))
    torch.save({"model": net.state_dict()}, tmp_path / "deit.pth")
    backbone = {"name": "deit_tiny", "image_size": 32, "patch_size": 8}
    model = network(config_of(backbone, activation="none"))
    told = begin(model, tmp_path / "deit.pth")
    assert "drawn anew: reduction" in told
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            model.eval().features(x), net.forward_features(x), rtol=1e-4, atol=1e-4
        )


# --- published GCP networks ----------------------------------------------------------------------


def test_a_published_gcp_network_gives_all_its_parts(tmp_path):
    source = published.randomise(published.LayerReduceResNet("resnet18"))
    state = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"epoch": 65, "state_dict": state}, tmp_path / "gcp.pth.tar")
    model = network(config_of({"name": "resnet18", "last_stride": 1}))
    told = begin(model, tmp_path / "gcp.pth.tar")
    assert told.startswith("began with features, reduction, classifier of ")
    assert "anew" not in told
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), source(x), rtol=1e-4, atol=1e-4)
    model = network(config_of("resnet18"))
    before = copy_of(model)
    told = begin(model, tmp_path / "gcp.pth.tar", classifier="new")
    assert parts_that_changed(before, model) == {"features", "reduction"}
    assert "drawn anew: classifier (as asked)" in told


def test_dropcovs_own_layer_is_taken_or_left_out(tmp_path):
    source = published.randomise(published.LayerReduceResNet("resnet18", dropcov=True))
    torch.save(source.state_dict(), tmp_path / "dropcov.pth")
    model = network(config_of("resnet18", pooling={"name": "dropcov"}))
    assert "features, reduction, pooling, classifier of" in begin(model, tmp_path / "dropcov.pth")
    kernel = model.head.pooling.importance.conv.weight
    assert torch.equal(kernel, source.eca_layer.conv.weight)
    told = begin(network(config_of("resnet18")), tmp_path / "dropcov.pth")
    assert told.endswith("; the file's pooling left out")


def test_a_reduction_of_another_width_is_refused(tmp_path):
    torch.save(drawn(config_of()).state_dict(), tmp_path / "8.pth")
    with pytest.raises(WeightsError) as caught:
        begin(network(config_of(reduced_channels=6)), tmp_path / "8.pth")
    assert "its reduction does not fit the network, in 5 places" in caught.value.message
    assert caught.value.hint == "model.head.reduced_channels=8 is the file's"


def test_hidden_layers_are_found_wherever_dropouts_put_them(tmp_path):
    with_dropout = drawn(config_of(hidden=[7, 6], dropout=0.5))
    torch.save(with_dropout.state_dict(), tmp_path / "hidden.pth")
    model = network(config_of(hidden=[7, 6]))
    begin(model, tmp_path / "hidden.pth", classifier="keep")
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), with_dropout(x))


# --- checkpoints and model files of ours ---------------------------------------------------------


def test_a_checkpoint_gives_all_and_its_average_where_it_has_one(tmp_path):
    source, average = drawn(config_of()), published.randomise(network(config_of()), seed=8)
    plain = save_checkpoint(tmp_path / "plain.pt", source, ema=None)
    with_average = save_checkpoint(tmp_path / "ema.pt", source, ema=average.state_dict())
    for path, want in ((plain, source), (with_average, average)):
        model = network(config_of())
        told = begin(model, path)
        assert told.startswith("began with features, reduction, classifier of ")
        assert "(checkpoint)" in told
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, want.state_dict()[name]), name


def test_folders_of_checkpoints(tmp_path):
    folder = tmp_path / "job" / "checkpoints" / "step-0000000003"
    folder.mkdir(parents=True)
    save_checkpoint(folder / "state.pt", drawn(config_of()))
    for path in (folder, folder.parent, tmp_path / "job"):
        assert "began with features, reduction, classifier" in begin(network(config_of()), path)


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        (["a", "b", "c", "d", "e"], "the file's is for other classes, without 'ant'"),
        (
            ["ant", "cat", "bee", "dog", "eel"],
            "the file has these classes in another order: number 1 is 'cat' there and 'bee' here",
        ),
        ([*CLASSES, "fox"], "the file's is for 6 classes, these data have 5"),
    ],
)
def test_a_classifier_for_other_classes_is_drawn_anew(tmp_path, theirs, reason):
    source = drawn(config_of(), num_classes=len(theirs))
    path = save_checkpoint(tmp_path / "x.pt", source, classes=theirs)
    model = network(config_of())
    before = copy_of(model)
    told = begin(model, path)
    assert f"drawn anew: classifier ({reason})" in told
    assert parts_that_changed(before, model) == {"features", "reduction"}


def test_to_keep_it_other_names_do_but_another_order_does_not(tmp_path):
    source = drawn(config_of())
    renamed = save_checkpoint(tmp_path / "a.pt", source, classes=["a", "b", "c", "d", "e"])
    model = network(config_of())
    begin(model, renamed, classifier="keep")
    assert torch.equal(model.head.classifier.weight, source.head.classifier.weight)
    shuffled = save_checkpoint(tmp_path / "b.pt", source, classes=CLASSES[::-1])
    model = network(config_of())
    before = copy_of(model)
    with pytest.raises(WeightsError, match=r"cannot be kept: .*order: number 0 is 'eel'"):
        begin(model, shuffled, classifier="keep")
    assert parts_that_changed(before, model) == set()


def test_a_classifier_for_vectors_in_another_order_is_not_kept(tmp_path):
    source = drawn(config_of())
    columns = config_of(pooling={"name": "isqrt", "vector": "upper_columns"})
    for path in (
        save_checkpoint(tmp_path / "rows.pt", source),
        save_checkpoint(tmp_path / "unsaid.pt", source, identity={"classes": CLASSES}),
    ):
        told = begin(network(columns), path)
        assert "classifier (it was trained on vectors in the order upper_rows" in told
        with pytest.raises(WeightsError, match=r"head\.pooling\.vector=upper_rows keeps"):
            begin(network(columns), path, classifier="keep")
    same = save_checkpoint(tmp_path / "columns.pt", source, order="upper_columns")
    assert "classifier of" in begin(network(columns), same, classifier="keep")


def test_model_files(tmp_path):
    source = drawn(config_of())
    model_file = ModelFile(
        config=config_of(),
        in_channels=3,
        num_classes=5,
        classes=tuple(CLASSES),
        state=source.state_dict(),
    )
    save_model(model_file, tmp_path / "net.gcpnet")
    model = network(config_of())
    told = begin(model, tmp_path / "net.gcpnet")
    assert re.search(r"features, reduction, classifier of .*net\.gcpnet \(model file\)", told)
    assert torch.equal(model.head.classifier.weight, source.head.classifier.weight)


def test_weights_in_half_precision_are_widened(tmp_path):
    state = {
        n: t.half() if t.is_floating_point() else t
        for n, t in drawn(config_of()).state_dict().items()
    }
    torch.save(state, tmp_path / "half.pth")
    model = network(config_of())
    begin(model, tmp_path / "half.pth")
    assert model.head.classifier.weight.dtype == torch.float32
    assert torch.equal(model.head.classifier.weight, state["head.classifier.weight"].float())


def test_files_that_are_no_networks(tmp_path):
    torch.save({"a.weight": torch.zeros(2, 2), "b.weight": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="its names fit no known layout"):
        begin(network(config_of()), tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="there is no file"):
        begin(network(config_of()), tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: torch.full_like(t, torch.nan), "values that are not finite"),
        (lambda t: t.int(), "values of type int32"),
        (lambda t: t.to(torch.complex64), "values of type complex64"),
    ],
)
def test_numbers_that_no_training_can_begin_with_are_refused(tmp_path, change, words):
    state = drawn(config_of()).state_dict()
    torch.save({**state, "features.stem.0.weight": change(state["features.stem.0.weight"])},
               tmp_path / "w.pth")  # fmt: skip
    model = network(config_of())
    before = copy_of(model)
    with pytest.raises(WeightsError, match=f"features.stem.0.weight has {words}"):
        begin(model, tmp_path / "w.pth")
    assert parts_that_changed(before, model) == set()
