"""Pictures for few and for many classes."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from workloads.config.evaluate import EvalConfig
from workloads.evaluation import plots, tables
from workloads.evaluation.metrics import calibrate, count_confusions, judge_classes
from workloads.evaluation.outcomes import from_table, judge
from workloads.evaluation.result import EvalResult, Evaluation


def evaluation(num_classes, num_images=400, name="class {}"):
    """Half of the images of a class are taken for the next one."""
    labels = torch.arange(num_images) % num_classes
    said = (labels + (torch.arange(num_images) // num_classes) % 2) % num_classes
    logits = torch.zeros(num_images, num_classes)
    logits[torch.arange(num_images), said] = 3.0
    outcomes = from_table(judge(logits, labels))
    confusions = count_confusions(labels.numpy(), outcomes.predicted.numpy(), num_classes)
    calibration = calibrate(outcomes.confidence.double().numpy(), outcomes.hits(1).numpy(), 15)
    result = EvalResult(
        top1=50.0,
        top5=100.0,
        loss=1.0,
        ece=calibration.ece,
        mce=calibration.mce,
        brier=0.5,
        mean_class_recall=50.0,
        num_images=num_images,
        num_classes=num_classes,
        non_finite_images=0,
        skipped_images=0,
        network="a network",
        weights_sha256="0",
        data_digest="0",
        notes=(),
        config=EvalConfig(weights="net.pth", origin="train-$x_1$:best"),
    )
    return Evaluation(
        result=result,
        outcomes=outcomes,
        classes=[name.format(k) for k in range(num_classes)],
        names=[f"{i}.png" for i in range(num_images)],
        per_class=judge_classes(labels.numpy(), confusions),
        confusions=confusions,
        calibration=calibration,
    )


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_few_classes_have_numbers_and_names():
    figure = plots.draw_confusions(evaluation(4, name="$kind_{}"))
    assert sorted(texts(figure)) == ["50"] * 8
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["$kind_0", "$kind_1", "$kind_2", "$kind_3"]


def test_many_classes_have_their_worst_pairs_listed():
    figure = plots.draw_confusions(evaluation(40))
    (listed,) = texts(figure)
    assert listed.splitlines()[2].split() == ["5", "class", "0", "→", "class", "1"]
    assert len(listed.splitlines()) == 22


def test_of_very_many_classes_a_cell_is_a_square():
    shares, of_each = plots._shares(evaluation(1000, 4000))
    assert of_each == 10
    assert shares.shape == (100, 100)
    # Of ten classes' images half stay, and a class's other half stays in the square but for one.
    assert shares.diagonal() == pytest.approx(0.95)
    assert np.diagonal(shares, 1) == pytest.approx(0.05)
    assert shares.sum(axis=1) == pytest.approx(1.0)


def test_a_number_of_classes_that_squares_do_not_divide():
    shares, of_each = plots._shares(evaluation(205, 410))
    assert (of_each, shares.shape) == (3, (69, 69))
    assert shares.sum(axis=1) == pytest.approx(1.0)


def test_pictures_are_png_and_the_same_each_time(tmp_path):
    data = evaluation(300, name="a very long name of a class {}")
    for folder in ("one", "two"):
        plots.write_pictures(data, tmp_path / folder)
    for name in (plots.CONFUSION_PICTURE, plots.CALIBRATION_PICTURE):
        picture = (tmp_path / "one" / name).read_bytes()
        assert picture == (tmp_path / "two" / name).read_bytes()
        with Image.open(io.BytesIO(picture)) as image:
            assert image.format == "PNG"
            assert min(image.size) > 600
            assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_the_most_confused_come_first_and_without_right_ones():
    data = evaluation(4)
    data.confusions[2, 0] = 60
    pairs = tables.most_confused(data)
    assert pairs[0] == (2, 0, 60)
    assert pairs[1:] == [(0, 1, 50), (1, 2, 50), (2, 3, 50), (3, 0, 50)]
