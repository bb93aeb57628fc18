"""Against scikit-learn, plain loops and cases worked out by hand."""

import numpy as np
import pytest
import torch

from workloads.evaluation.metrics import calibrate, count_confusions, judge_classes
from workloads.evaluation.outcomes import from_table, judge


@pytest.fixture(scope="module")
def said():
    """400 images of 6 classes, of which class 5 is never seen and class 4 never predicted."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (400,), generator=generator)
    logits = torch.randn(400, 6, generator=generator) * 2
    logits[torch.arange(400), labels] += 1.5
    logits[:, 4] = -9.0
    return logits, labels


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_against_scikit_learn(said):
    from sklearn import metrics

    logits, labels = said
    outcomes = from_table(judge(logits, labels))
    predicted = outcomes.predicted.numpy()
    confusions = count_confusions(labels.numpy(), predicted, 6)
    assert confusions.dtype == np.int64
    assert np.array_equal(
        confusions, metrics.confusion_matrix(labels.numpy(), predicted, labels=range(6))
    )
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels.numpy(), predicted, labels=range(6), zero_division=np.nan
    )
    got = judge_classes(labels.numpy(), confusions)
    assert np.array_equal(got.support, support)
    np.testing.assert_allclose(got.precision, precision, rtol=1e-14)
    np.testing.assert_allclose(got.recall, recall, rtol=1e-14)
    # scikit-learn has 0, not nothing, where a class was seen and never predicted.
    np.testing.assert_allclose(np.nan_to_num(got.f1), np.nan_to_num(f1), rtol=1e-14)
    assert got.mean_recall == pytest.approx(
        metrics.balanced_accuracy_score(labels.numpy(), predicted), rel=1e-14
    )
    probabilities = logits.double().softmax(1).numpy()
    assert outcomes.loss.mean().item() == pytest.approx(
        metrics.log_loss(labels.numpy(), probabilities, labels=range(6)), rel=1e-12
    )
    one_hot = np.eye(6)[labels.numpy()]
    assert outcomes.brier.mean().item() == pytest.approx(
        ((probabilities - one_hot) ** 2).sum(1).mean(), rel=1e-12
    )
    assert outcomes.hits(5).double().mean() == metrics.top_k_accuracy_score(
        labels.numpy(), probabilities, k=5, labels=range(6)
    )


@pytest.mark.parametrize("num_bins", [1, 10, 15, 100])
def test_calibration_against_a_loop(said, num_bins):
    logits, labels = said
    outcomes = from_table(judge(logits, labels))
    confidence, correct = outcomes.confidence.double().numpy(), outcomes.hits(1).numpy()
    got = calibrate(confidence, correct, num_bins)
    ece, largest = 0.0, 0.0
    for m in range(1, num_bins + 1):
        inside = [i for i, c in enumerate(confidence) if (m - 1) / num_bins < c <= m / num_bins]
        assert got.counts[m - 1] == len(inside)
        if inside:
            gap = abs(sum(correct[inside]) / len(inside) - sum(confidence[inside]) / len(inside))
            ece += gap * len(inside) / len(confidence)
            largest = max(largest, gap)
    assert got.ece == pytest.approx(ece, rel=1e-12)
    assert got.mce == pytest.approx(largest, rel=1e-12)


def test_calibration_by_hand():
    """Bins of a tenth: 0.95, 0.95 (one right), 1.0 (right), 0.35 (wrong)."""
    got = calibrate(np.array([0.95, 0.95, 1.0, 0.35]), np.array([True, False, True, False]), 10)
    assert got.counts.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 3]
    last = abs(2 / 3 - (0.95 + 0.95 + 1.0) / 3)
    assert got.ece == pytest.approx(0.75 * last + 0.25 * 0.35)
    assert got.mce == pytest.approx(0.35)
    assert np.isnan(got.accuracy[0])


def test_a_bin_holds_its_upper_edge():
    got = calibrate(np.array([0.2, 0.2000001, 1.0]), np.array([True] * 3), 5)
    assert got.counts.tolist() == [1, 1, 0, 0, 1]


def test_perfect_confidence_has_no_error():
    got = calibrate(np.ones(7), np.ones(7, dtype=bool), 15)
    assert (got.ece, got.mce) == (0.0, 0.0)


def test_images_without_an_answer_count_in_support_alone():
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, -1, 1, 0])
    confusions = count_confusions(labels, predicted, 2)
    assert confusions.tolist() == [[1, 0], [1, 1]]
    got = judge_classes(labels, confusions)
    assert got.support.tolist() == [2, 2]
    assert got.recall.tolist() == [0.5, 0.5]
    calibration = calibrate(np.array([0.9, np.nan]), np.array([True, False]), 10)
    assert calibration.counts.sum() == 1
    assert calibration.ece == pytest.approx(0.1)


def test_no_answers_at_all():
    got = calibrate(np.array([np.nan]), np.array([False]), 3)
    assert np.isnan(got.ece)
    assert np.isnan(got.mce)
