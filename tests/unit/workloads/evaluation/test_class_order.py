"""Outputs that stand in another order than the classes are found by the predictions."""

import numpy as np
import pytest
import torch

from workloads.config.data import DigitsConfig
from workloads.data.sources import build_eval_data
from workloads.evaluation.class_order import refuse_permuted
from workloads.evaluation.errors import EvaluationError
from workloads.models.gcp_net import build_model

CLASSES = list("abcdefgh")


def refusal(check, *args, **options):
    with pytest.raises(EvaluationError) as caught:
        check(*args, **options)
    return str(caught.value)


def predictions(num_classes, num_images, accuracy, order=None, seed=0):
    """Right in a share of the images, else anything; `order[k]` is the output for class k."""
    random = np.random.default_rng(seed)
    labels = random.integers(num_classes, size=num_images)
    right = random.random(num_images) < accuracy
    said = np.where(right, labels, random.integers(num_classes, size=num_images))
    return labels, said if order is None else np.asarray(order)[said]


def wnids(count):
    return [f"n{i:08d}" for i in range(count)]


@pytest.mark.parametrize(
    ("num_classes", "num_images", "accuracy"),
    [(10, 359, 0.95), (10, 359, 0.0), (1000, 50_000, 0.76), (1000, 50_000, 0.001), (2, 40, 0.5)],
)
def test_the_right_order_passes_good_or_bad(num_classes, num_images, accuracy):
    refuse_permuted(*predictions(num_classes, num_images, accuracy), wnids(num_classes))


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ((np.arange(200) + 1) % 200, "the class 1 place earlier"),
        ((np.arange(200) - 1) % 200, "the class 1 place later"),
        (np.arange(200)[::-1], "(reversed)"),
        (sorted(range(200), key=str), "numbers sorted as text"),
        (np.random.default_rng(7).permutation(200), "than the data's classes: its"),
    ],
    ids=["shifted", "shifted back", "reversed", "as text", "shuffled"],
)
def test_another_order_is_found_and_named(order, words):
    labels, said = predictions(200, 4000, 0.7, order)
    text = refusal(refuse_permuted, labels, said, wnids(200))
    assert words in text
    assert "70." in text or "69." in text
    assert "WordNet ids" in text
    k = int(np.flatnonzero(np.asarray(order) != np.arange(200))[0])
    stands = int(np.flatnonzero(np.asarray(order) == k)[0])
    assert f"output {k} stands for class {stands}, 'n{stands:08d}'" in text


def test_a_network_that_always_says_one_class_is_no_other_order():
    labels = np.array([0] * 95 + [1] * 5)
    refuse_permuted(labels, np.ones(100, dtype=np.int64), ["no", "yes"])


def test_few_images_prove_nothing():
    labels = np.arange(8)
    refuse_permuted(labels, (labels + 1) % 8, CLASSES)


def test_images_without_an_answer_prove_nothing():
    labels, said = predictions(8, 400, 0.9)
    refuse_permuted(labels, np.full_like(said, -1), CLASSES)


def test_two_swapped_classes_of_many_pass():
    """The number is far from chance: it stands, and the table of classes shows it."""
    order = np.arange(10)
    order[[3, 4]] = [4, 3]
    refuse_permuted(*predictions(10, 400, 0.95, order), [str(i) for i in range(10)])


@pytest.mark.parametrize("seed", range(8))
def test_untrained_networks_are_not_taken_for_permuted(seed, digits_config):
    torch.manual_seed(seed)
    model = build_model(digits_config.model, in_channels=1, num_classes=10).eval()
    data = build_eval_data(DigitsConfig(), images=digits_config.images)
    images, labels = data.dataset.get_batch(torch.arange(len(data.labels)), 0)
    with torch.no_grad():
        said = model(data.scale(images)).argmax(1)
    refuse_permuted(labels.numpy(), said.numpy(), data.classes)
