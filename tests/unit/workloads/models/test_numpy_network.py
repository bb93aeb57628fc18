"""Whole networks against the same networks in plain NumPy, from the formulas and the weights alone.

Shape letters: B images, C channels, O output channels, H W map, D reduced channels, M positions.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

from workloads.config.model import ModelConfig
from workloads.models.gcp_net import GCPNet, build_model

Weights = Mapping[str, np.ndarray]
CLASSES = 5


def convolve(x_BCHW: np.ndarray, weight_OCKL: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """Add up, tap by tap of the kernel, what the shifted map contributes."""
    _, _, kernel, _ = weight_OCKL.shape
    padded = np.pad(x_BCHW, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    height = (padded.shape[2] - kernel) // stride + 1
    width = (padded.shape[3] - kernel) // stride + 1
    out = np.zeros((len(x_BCHW), len(weight_OCKL), height, width))
    for i in range(kernel):
        for j in range(kernel):
            shifted = padded[:, :, i:, j:][:, :, ::stride, ::stride][:, :, :height, :width]
            out += np.einsum("bchw,oc->bohw", shifted, weight_OCKL[:, :, i, j], optimize=True)
    return out


def max_pool(x_BCHW: np.ndarray, kernel: int, stride: int, padding: int) -> np.ndarray:
    padded = np.pad(
        x_BCHW,
        [(0, 0), (0, 0), (padding, padding), (padding, padding)],
        constant_values=-np.inf,
    )
    height = (padded.shape[2] - kernel) // stride + 1
    shifts = [
        padded[:, :, i:, j:][:, :, ::stride, ::stride][:, :, :height, :height]
        for i in range(kernel)
        for j in range(kernel)
    ]
    return np.max(shifts, axis=0)


def batch_norm(x_BCHW: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    scale = weights[f"{name}.weight"] / np.sqrt(var + 1e-5)
    shift = weights[f"{name}.bias"] - mean * scale
    return x_BCHW * scale[:, None, None] + shift[:, None, None]


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def residual_block(
    x: np.ndarray, weights: Weights, name: str, stride: int, shortcut: str
) -> np.ndarray:
    """Two 3x3 convolutions, and a shortcut of 1x1 where the weights have one."""
    y = convolve(x, weights[f"{name}.conv1.weight"], stride, 1)
    y = relu(batch_norm(y, weights, f"{name}.bn1"))
    y = batch_norm(convolve(y, weights[f"{name}.conv2.weight"], 1, 1), weights, f"{name}.bn2")
    if f"{name}.{shortcut}.0.weight" in weights:
        x = convolve(x, weights[f"{name}.{shortcut}.0.weight"], stride, 0)
        x = batch_norm(x, weights, f"{name}.{shortcut}.1")
    return relu(x + y)


def small_resnet(x: np.ndarray, weights: Weights) -> np.ndarray:
    x = relu(
        batch_norm(convolve(x, weights["features.stem.0.weight"], 1, 1), weights, "features.stem.1")
    )
    for stage, stride in enumerate((1, 2)):
        x = residual_block(x, weights, f"features.stages.{stage}.0", stride, "shortcut")
    return x


def resnet18(x: np.ndarray, weights: Weights) -> np.ndarray:
    x = convolve(x, weights["features.conv1.weight"], 2, 3)
    x = max_pool(relu(batch_norm(x, weights, "features.bn1")), 3, 2, 1)
    for stage, stride in ((1, 1), (2, 2), (3, 2), (4, 1)):  # the last stride is removed
        for block in (0, 1):
            name = f"features.layer{stage}.{block}"
            x = residual_block(x, weights, name, stride if block == 0 else 1, "downsample")
    return x


def covariance(x_BDM: np.ndarray) -> np.ndarray:
    centred = x_BDM - x_BDM.mean(axis=2, keepdims=True)
    return centred @ centred.transpose(0, 2, 1) / x_BDM.shape[2]


def newton_schulz(cov_BDD: np.ndarray) -> np.ndarray:
    """Five coupled updates: trace before, square root of the trace after."""
    eye = np.eye(cov_BDD.shape[1])
    trace = np.trace(cov_BDD, axis1=1, axis2=2)[:, None, None]
    y, z = cov_BDD / trace, np.broadcast_to(eye, cov_BDD.shape)
    for _ in range(5):
        y, z = 0.5 * y @ (3 * eye - z @ y), 0.5 * (3 * eye - z @ y) @ z
    return np.sqrt(trace) * y


def square_root(cov_BDD: np.ndarray) -> np.ndarray:
    """By eigenvalues; those not above the spacing of numbers at the largest count as zero."""
    values, vectors = np.linalg.eigh(cov_BDD)
    values = np.where(values > np.spacing(values[:, -1:]), values, 0)
    return (vectors * np.sqrt(values)[:, None, :]) @ vectors.transpose(0, 2, 1)


def head(
    x: np.ndarray, weights: Weights, normalise: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    x = convolve(x, weights["head.reduction.0.weight"], 1, 0)
    x = relu(batch_norm(x, weights, "head.reduction.1"))
    matrices = normalise(covariance(x.reshape(*x.shape[:2], -1)))
    rows, columns = np.triu_indices(x.shape[1])
    vectors = matrices[:, rows, columns]
    return vectors @ weights["head.classifier.weight"].T + weights["head.classifier.bias"]


BACKBONES = {
    "small_resnet": (small_resnet, {"width": 4, "blocks": (1, 1)}, 16),
    "resnet18": (resnet18, {"last_stride": 1}, 64),
}
NORMALISERS = {
    "isqrt": newton_schulz,
    "dropcov": lambda cov_BDD: cov_BDD,  # in evaluation nothing is dropped, nothing normalised
    "cov": lambda cov_BDD: cov_BDD,
    "mpn_eig": square_root,
}


def network(backbone: str, pooling: str) -> GCPNet:
    """Build a network and draw its statistics too: fresh ones are ones and zeros."""
    config = ModelConfig.model_validate(
        {
            "backbone": {"name": backbone, **BACKBONES[backbone][1]},
            "head": {"reduced_channels": 6, "pooling": {"name": pooling}},
        }
    )
    torch.manual_seed(0)
    model = build_model(config, in_channels=3, num_classes=CLASSES).double().eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (layer.bias.data, layer.running_mean):
                tensor.uniform_(-0.3, 0.3)
    return model


@pytest.mark.parametrize("pooling", NORMALISERS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_logits_are_those_of_the_network_in_numpy(backbone, pooling):
    model = network(backbone, pooling)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    features, _, size = BACKBONES[backbone]
    images = np.random.default_rng(0).normal(size=(2, 3, size, size))
    expected = head(features(images, weights), weights, NORMALISERS[pooling])

    with torch.no_grad():
        logits = model(torch.from_numpy(images)).numpy()
        single = model.float()(torch.from_numpy(images).float()).numpy()

    scale = np.abs(expected).max()
    assert scale > 0.01
    assert np.abs(logits - expected).max() < 1e-10 * scale
    assert np.abs(single - expected).max() < 1e-4 * scale


def test_the_parts_are_right_on_numbers_worked_out_by_hand():
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    taps = np.array([[0.0, 1.0], [0.0, 2.0]]).reshape(1, 1, 2, 2)
    assert convolve(x, taps, 1, 0).tolist() == [[[[9.0, 12.0], [18.0, 21.0]]]]
    assert max_pool(x, 3, 2, 1).tolist() == [[[[4.0, 5.0], [7.0, 8.0]]]]
    assert covariance(np.array([[[1.0, 3.0], [2.0, 2.0]]])).tolist() == [[[1.0, 0.0], [0.0, 0.0]]]
    # One channel of variance 4: y = 1 is a fixed point, and the root of the trace gives 2.
    assert newton_schulz(np.array([[[4.0]]])).tolist() == [[[2.0]]]
    assert square_root(np.diag([4.0, 9.0])[None]).round(12).tolist() == [[[2.0, 0.0], [0.0, 3.0]]]
