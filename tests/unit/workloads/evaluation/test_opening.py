"""Every kind of weights opens, or says why not."""

import copy

import pytest
import torch

from workloads.config.images import ImagesConfig
from workloads.config.model import ModelConfig
from workloads.evaluation.errors import EvaluationError
from workloads.evaluation.opening import open_network
from workloads.models.errors import ModelError
from workloads.models.gcp_net import build_model
from workloads.models.weights.digest import digest_weights
from workloads.models.weights.model_file import ModelFile, save_model
from workloads.worker.failures import CheckpointError
from workloads.worker.manifest import STATE_FILE
from workloads.worker.paths import JobPaths

DIGITS = tuple(str(digit) for digit in range(10))


def averaged(state):
    """Twice the weights: told from the trained ones at a glance."""
    weights = {
        name: tensor * 2 for name, tensor in state["model"].items() if tensor.is_floating_point()
    }
    return {**state, "ema": weights}


def first_weight(network):
    return next(iter(network.state_dict().values()))


def test_a_checkpoint_says_all(save_job, digits_state, digits_net, digits_config):
    job = save_job(digits_state)
    folder = next(JobPaths(job).checkpoints.glob("step-*"))
    for path in (job, JobPaths(job).checkpoints, folder, folder / STATE_FILE):
        opened = open_network(path)
        assert not opened.network.training
        assert opened.sha256 == digest_weights(digits_net)
        assert opened.classes == DIGITS
        assert (opened.in_channels, opened.num_outputs) == (1, 10)
        assert opened.images == digits_config.images
        assert opened.config == digits_config.model
        assert opened.description == (
            "small_resnet with isqrt; a checkpoint, step 60, trained weights"
        )


def test_a_job_gives_its_best_checkpoint(save_job, digits_state):
    later = copy.deepcopy(digits_state) | {"step": 90}
    next(iter(later["model"].values())).mul_(3)
    job = save_job(digits_state, later)
    assert "step 60" in open_network(job).description
    JobPaths(job).best.unlink()
    last = JobPaths(job).checkpoints / "step-0000000090"
    assert "step 90" in open_network(last).description


@pytest.mark.parametrize("wrap", [lambda ema: ema, lambda ema: {"updates": 7, "weights": ema}])
def test_which_weights(save_job, digits_state, digits_net, wrap):
    both = averaged(digits_state)
    job = save_job({**both, "ema": wrap(both["ema"])})
    trained = first_weight(digits_net)
    for average, factor, words in (
        ("auto", 2, "moving average"),
        ("ema", 2, "moving average"),
        ("model", 1, "trained weights"),
    ):
        opened = open_network(job, average=average)
        assert torch.equal(first_weight(opened.network), factor * trained)
        assert words in opened.description


def test_no_average_to_take(save_job, digits_state):
    with pytest.raises(EvaluationError, match=r"no moving average.*average=model"):
        open_network(save_job(digits_state), average="ema")


def test_a_checkpoint_of_the_first_version(save_job, digits_state, digits_config):
    """Its `data` said how large the images are, and there was no `images`."""
    config = {"data": {"name": "image_folder", "path": "x", "image_size": 64, "augment": True}}
    old = {**digits_state, "config": {**config, "model": digits_state["config"]["model"]}}
    assert open_network(save_job(old)).images == ImagesConfig(size=64, resize=73)
    digits = {**old, "config": {**old["config"], "data": {"name": "digits", "augment": True}}}
    assert open_network(save_job(digits, name="other")).images == digits_config.images


def test_a_damaged_checkpoint_is_refused(save_job, digits_state):
    job = save_job(digits_state)
    state = next(JobPaths(job).checkpoints.glob("step-*")) / STATE_FILE
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)
    for path in (job, state.parent, state):
        with pytest.raises(CheckpointError):
            open_network(path)
    assert state.read_bytes() == bytes(data)


def test_a_folder_without_checkpoints(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        open_network(tmp_path)


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelError, match="there is no file"):
        open_network(tmp_path / "weights.pth")


def test_a_model_file(tmp_path, digits_net, tiny_model):
    path = tmp_path / "net.gcpnet"
    model = ModelFile(
        tiny_model, in_channels=1, num_classes=10, state=digits_net.state_dict(), classes=DIGITS
    )
    save_model(model, path)
    opened = open_network(path)
    assert opened.sha256 == digest_weights(digits_net)
    assert opened.classes == DIGITS
    assert opened.images is None
    assert opened.description == "small_resnet with isqrt; a model file"


def test_a_published_file_is_told_from_its_weights(tmp_path):
    import torchvision

    torch.manual_seed(0)
    published = torchvision.models.resnet18(num_classes=4).eval()
    path = tmp_path / "resnet18.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in published.state_dict().items()}}, path)
    opened = open_network(path, in_channels=3)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(opened.network(images), published(images), atol=1e-5)
    assert opened.classes is None
    assert (opened.in_channels, opened.num_outputs) == (3, 4)
    assert opened.description.startswith("resnet18 with gap; weights in the layout ")
    with pytest.raises(EvaluationError, match=r"3 channels, the data have 1 channel \(gray\)"):
        open_network(path, in_channels=1)
    with pytest.raises(EvaluationError, match="no moving average"):
        open_network(path, average="ema")


def test_a_network_that_is_given_replaces_what_the_weights_show(tmp_path):
    """iSQRT and plain covariance have the same weights; only a person knows which it was."""
    document = {"backbone": {"name": "resnet18"}, "head": {"reduced_channels": 16}}
    isqrt = ModelConfig.model_validate(document)
    cov = ModelConfig.model_validate(
        {**document, "head": {"reduced_channels": 16, "pooling": {"name": "cov"}}}
    )
    torch.manual_seed(0)
    state = build_model(cov, in_channels=3, num_classes=4).state_dict()
    path = tmp_path / "net.pth"
    torch.save(state, path)
    assert open_network(path).config.head.pooling == isqrt.head.pooling
    assert open_network(path, model=cov).config == cov
    wrong = ModelConfig.model_validate({"backbone": {"name": "resnet34"}})
    with pytest.raises(ModelError, match="do not fit the network"):
        open_network(path, model=wrong)


def test_a_given_network_must_fit_a_checkpoint_too(save_job, digits_state):
    wider = ModelConfig.model_validate({"backbone": {"name": "small_resnet", "width": 16}})
    with pytest.raises(ModelError, match="do not fit the network"):
        open_network(save_job(digits_state), model=wider)


def test_another_vector_order_is_refused(save_job, digits_state, digits_config):
    document = digits_config.model.model_dump()
    document["head"]["pooling"]["vector"] = "upper_columns"
    other = ModelConfig.model_validate(document)
    with pytest.raises(EvaluationError, match=r"order upper_rows.*has upper_columns"):
        open_network(save_job(digits_state), model=other)
