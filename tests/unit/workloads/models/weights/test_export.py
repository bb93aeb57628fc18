"""Exported networks: the same logits elsewhere, or no file."""

import importlib.util
import resource

import numpy as np
import onnxruntime
import pytest
import torch

from tests.unit.workloads.models.weights import published
from workloads.config.model import ModelConfig
from workloads.models.gcp_net import build_model
from workloads.models.weights import export as module
from workloads.models.weights.errors import WeightsError
from workloads.models.weights.export import export, usual_image_size
from workloads.models.weights.model_file import ModelFile

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def model(pooling: str = "isqrt", **options) -> ModelFile:
    config = ModelConfig.model_validate(
        {
            "backbone": {"name": "small_resnet", "width": 4},
            "head": {"reduced_channels": 4, "pooling": {"name": pooling, **options}},
        }
    )
    net = published.randomise(build_model(config, in_channels=1, num_classes=3))
    return ModelFile(config, in_channels=1, num_classes=3, state=net.state_dict())


def images(number: int) -> torch.Tensor:
    return torch.randn(number, 1, 16, 16, generator=torch.Generator().manual_seed(9))


def test_onnx_gives_the_same_logits_at_any_batch(tmp_path):
    network = model()
    done = export(network, tmp_path / "a.onnx", file_format="onnx", image_size=16)
    assert done.runtime.startswith("onnxruntime ")
    assert done.batch_sizes == (1, 2, 5)
    assert 0 <= done.difference < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    for number in (1, 3):
        with torch.no_grad():
            expected = network.build()(images(number)).numpy()
        got = session.run(["logits"], {"images": images(number).numpy()})[0]
        assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_without_onnxruntime_the_reference_checks_a_fixed_batch(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        module.importlib.util,
        "find_spec",
        lambda name: None if name == "onnxruntime" else find(name),
    )
    done = export(model("gap"), tmp_path / "a.onnx", file_format="onnx", image_size=16, batch=2)
    assert done.runtime.startswith("onnx ")
    assert (done.batch, done.batch_sizes) == (2, (2,))
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    assert session.get_inputs()[0].shape == [2, 1, 16, 16]


@pytest.mark.parametrize("pooling", ["isqrt", "mpn_eig"])
def test_torch_export_takes_eigenvalues_too(pooling, tmp_path):
    network = model(pooling)
    done = export(network, tmp_path / "a.pt2", file_format="torch-export", image_size=16)
    assert done.difference < 1e-4
    program = torch.export.load(tmp_path / "a.pt2").module()
    for number in (1, 4):
        with torch.no_grad():
            expected = network.build()(images(number))
        torch.testing.assert_close(program(images(number)), expected, rtol=1e-4, atol=1e-4)


def test_what_onnx_cannot_say_is_refused_with_the_alternative(tmp_path):
    with pytest.raises(WeightsError) as caught:
        export(model("mpn_eig"), tmp_path / "a.onnx", file_format="onnx", image_size=16)
    assert "ONNX has no operator for aten._linalg_eigh" in caught.value.message
    assert "--format torch-export" in caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("off_by", [1e-3, float("nan")])
def test_a_program_with_other_logits_is_not_kept(off_by, tmp_path, monkeypatch):
    load = module._load_torch_export

    def wrong(path):
        runtime, run = load(path)
        return runtime, lambda x: run(x) * (1 + off_by)

    monkeypatch.setattr(module, "_load_torch_export", wrong)
    (tmp_path / "a.pt2").write_text("before")
    with pytest.raises(WeightsError, match="logits differ by"):
        export(
            model("gap"), tmp_path / "a.pt2", file_format="torch-export", image_size=16, force=True
        )
    assert (tmp_path / "a.pt2").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt2"]


def test_missing_packages_name_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="onnx and onnxscript") as caught:
        export(model("gap"), tmp_path / "a.onnx", file_format="onnx")
    assert caught.value.hint == "pip install 'gcpctl[export]'"


def test_images_too_small_and_existing_files_are_refused(tmp_path):
    deit = {"name": "deit_tiny", "image_size": 64}
    config = ModelConfig.model_validate({"backbone": deit, "head": {"class_token": "only"}})
    with pytest.raises(WeightsError, match="deit_tiny cannot take images of 32 pixels"):
        export(
            ModelFile(config, 3, 2, {}),
            tmp_path / "a.pt2",
            file_format="torch-export",
            image_size=32,
        )
    (tmp_path / "a.onnx").touch()
    with pytest.raises(WeightsError, match="exists"):
        export(model(), tmp_path / "a.onnx", file_format="onnx")


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ({"name": "resnet50"}, 224),
        ({"name": "resnet50", "stem": "small"}, 32),
        ({"name": "inception_v3"}, 299),
        ({"name": "deit_tiny", "image_size": 64}, 64),
        ({"name": "small_resnet"}, 32),
    ],
)
def test_images_have_the_networks_own_size_unless_said(backbone, size):
    assert usual_image_size(ModelConfig.model_validate({"backbone": backbone})) == size


@pytest.mark.parametrize("file_format", ["onnx", "torch-export"])
def test_a_full_disk_is_a_system_error_that_leaves_nothing(file_format, tmp_path):
    """A limit on the size of files makes writes fail as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(OSError, match="File too large"):
            export(model("gap"), tmp_path / "a.out", file_format=file_format, image_size=16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
