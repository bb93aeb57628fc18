"""Every image once, for any number of images and workers."""

import math

import pytest
import torch

from workloads.data.loaders import val_batches
from workloads.evaluation.classification import (
    check_each_once,
    evaluate,
    sum_batches,
    summarize,
)
from workloads.evaluation.metrics import ClassificationSums, count_correct

CPU = torch.device("cpu")


class Points:
    """Images that are their own logits."""

    def __init__(self, num_images, num_classes=7):
        generator = torch.Generator().manual_seed(num_images)
        self.images = torch.randn(num_images, num_classes, generator=generator)
        self.labels = torch.randint(num_classes, (num_images,), generator=generator)

    def __len__(self):
        return len(self.labels)

    def get_batch(self, indices, epoch):
        return self.images[indices], self.labels[indices]


def by_hand(data):
    """Sort the classes of each image in Python."""
    loss = top1 = top5 = 0.0
    for logits, label in zip(data.images.tolist(), data.labels.tolist(), strict=True):
        ranking = sorted(range(len(logits)), key=lambda k: -logits[k])
        top1 += ranking[0] == label
        top5 += label in ranking[:5]
        loss += math.log(sum(math.exp(x) for x in logits)) - logits[label]
    n = len(data)
    return loss / n, 100 * top1 / n, 100 * top5 / n


@pytest.mark.parametrize("num_images", range(1, 21))
def test_exact_at_any_world_size(num_images):
    data = Points(num_images)
    want = by_hand(data)
    for world_size in range(1, 5):
        for batch_size in (1, 3, 7):
            total, seen = ClassificationSums(), torch.zeros(num_images, dtype=torch.int32)
            for rank in range(world_size):
                batches = val_batches(data, batch_size=batch_size, rank=rank, world_size=world_size)
                total += sum_batches(torch.nn.Identity(), batches, CPU, seen)
            check_each_once(seen)
            got = summarize(total)
            assert (got.loss, got.top1, got.top5) == pytest.approx(want, rel=1e-12)
            assert got.num_images == num_images


def test_fewer_classes_than_five():
    got = evaluate(torch.nn.Identity(), Points(9, num_classes=3), device=CPU, batch_size=4)
    assert got.top5 == 100.0


def test_a_row_that_is_not_finite_is_wrong():
    logits = torch.tensor([[0.0, math.nan], [math.inf, 0.0], [1.0, 0.0], [math.nan, math.nan]])
    hits1, hits5 = count_correct(logits, torch.tensor([1, 0, 0, 0]))
    assert (int(hits1), int(hits5)) == (1, 1)


@pytest.mark.parametrize("indices", [[0, 1, 2], [0, 1, 2, 2], [0, 1, 2, 3, 3], [0, 0, 3, 3]])
def test_a_missing_or_doubled_image_is_an_error(indices):
    batch = (torch.tensor(indices), torch.zeros(len(indices), 2), torch.zeros(len(indices)).long())
    seen = torch.zeros(4, dtype=torch.int32)
    sum_batches(torch.nn.Identity(), [batch], CPU, seen)
    with pytest.raises(RuntimeError, match="exactly once"):
        check_each_once(seen)


def test_evaluate_itself_checks(monkeypatch):
    """Images 0 and 3 twice, 1 and 2 never: as many, with the same sum of numbers."""
    doubled = torch.tensor([0, 0, 3, 3])
    batch = (doubled, torch.zeros(4, 2), torch.zeros(4).long())
    monkeypatch.setattr(
        "workloads.evaluation.classification.val_batches", lambda *a, **k: iter([batch])
    )
    with pytest.raises(RuntimeError, match=r"image 0 2 times, and 4 of 4 images"):
        evaluate(torch.nn.Identity(), Points(4), device=CPU, batch_size=4)


def test_the_mode_is_left_as_it_was():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(7))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for training in (True, False):
        model.train(training)
        evaluate(model, Points(10), device=CPU, batch_size=4)
        assert model.training is training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
