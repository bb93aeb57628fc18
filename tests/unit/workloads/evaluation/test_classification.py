"""Every image once, and the same bits for any number of ranks."""

import math

import pytest
import torch

from workloads.data.loaders import val_batches
from workloads.data.sources import build_eval_data
from workloads.evaluation.classification import (
    evaluate,
    evaluation_batch_size,
    exact_mean,
    judge_dataset,
)
from workloads.evaluation.outcomes import NUM_COLUMNS, check_each_once, from_table, judge

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


def as_it_is(images):
    return images


def judged(data, model=None, **options):
    model = model or torch.nn.Identity()
    return evaluate(model, data, scale=as_it_is, device=CPU, **{"batch_size": 4, **options})


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
def test_counts_like_a_loop_in_python(num_images):
    data = Points(num_images)
    for batch_size in (1, 3, 7):
        got = judged(data, batch_size=batch_size)
        assert (got.loss, got.top1, got.top5) == pytest.approx(by_hand(data), rel=1e-12)
        assert got.num_images == num_images


@pytest.mark.parametrize("num_images", [1, 2, 7, 16, 20])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_share_out_the_same_batches(num_images, world_size):
    """All batches of one rank, each at exactly one rank, in order."""
    data = Points(num_images)
    alone = [indices.tolist() for indices, _, _ in val_batches(data, batch_size=3)]
    shares = [
        [b[0].tolist() for b in val_batches(data, batch_size=3, rank=r, world_size=world_size)]
        for r in range(world_size)
    ]
    assert shares == [alone[r::world_size] for r in range(world_size)]
    assert sorted(i for batch in alone for i in batch) == list(range(num_images))


class FirstDigits:
    """The first 33 digits: of batches of 32 the last holds one, whose last bits differ."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return 33

    def get_batch(self, indices, epoch):
        return self.data.dataset.get_batch(indices, epoch)


def test_ranks_get_the_same_bits_as_one(on_ranks, digits_net, digits_config):
    """A convolution's last bits depend on the batch: 2 and 3 ranks must see the same batches."""
    data = build_eval_data(digits_config.data, images=digits_config.images)

    def action(rank, world_size):
        options = {
            "scale": data.scale,
            "device": CPU,
            "batch_size": 32,
            "rank": rank,
            "world_size": world_size,
        }
        result = evaluate(digits_net, FirstDigits(data), **options)
        rows = judge_dataset(digits_net, FirstDigits(data), **options)
        columns = (rows.loss, rows.brier, rows.classes, rows.probabilities)
        return [result.loss.hex(), result.top1, result.top5, *(c.tolist() for c in columns)]

    alone = action(0, 1)
    for world_size in (2, 3):  # the third has no batch
        said = on_ranks(lambda rank, n=world_size: action(rank, n), world_size)
        assert said == [alone] * world_size


def test_fewer_classes_than_five():
    assert judged(Points(9, num_classes=3)).top5 == 100.0


def test_a_row_that_is_not_finite_is_wrong():
    logits = torch.tensor([[0.0, math.nan], [math.inf, 0.0], [1.0, 0.0], [math.nan, math.nan]])
    outcomes = from_table(judge(logits, torch.tensor([1, 0, 0, 0])))
    assert outcomes.hits(1).tolist() == [False, False, True, False]
    assert outcomes.hits(5).tolist() == [False, False, True, False]
    assert outcomes.predicted.tolist() == [-1, -1, 0, -1]
    assert outcomes.confidence.isnan().tolist() == [True, True, False, True]


def test_hopeless_classes_keep_their_order():
    """Their probabilities underflow to zero all alike."""
    logits = torch.tensor([[0.0, -3000.0, -1000.0, -4000.0, -2000.0, -5000.0, -900.0]])
    outcomes = from_table(judge(logits, torch.tensor([4])))
    assert outcomes.classes[0].tolist() == [0, 6, 2, 4, 1]
    assert outcomes.loss.tolist() == [2000.0]


@pytest.mark.parametrize("indices", [[0, 1, 2], [0, 1, 2, 2], [0, 1, 2, 3, 3], [0, 0, 3, 3]])
def test_a_missing_or_doubled_image_is_an_error(indices):
    table = torch.zeros(4, NUM_COLUMNS, dtype=torch.float64)
    rows = judge(torch.zeros(len(indices), 2), torch.zeros(len(indices)).long())
    table.index_add_(0, torch.tensor(indices), rows)
    with pytest.raises(RuntimeError, match="exactly once"):
        from_table(table)


def test_evaluate_itself_checks(monkeypatch):
    """Images 0 and 3 twice, 1 and 2 never: as many, with the same sum of numbers."""
    doubled = torch.tensor([0, 0, 3, 3])
    batch = (doubled, torch.zeros(4, 2), torch.zeros(4).long())
    monkeypatch.setattr(
        "workloads.evaluation.classification.val_batches", lambda *a, **k: iter([batch])
    )
    with pytest.raises(RuntimeError, match=r"image 0 2 times, and 4 of 4 images"):
        judged(Points(4))


def test_each_once_is_silent_when_right():
    check_each_once(torch.ones(5, dtype=torch.float64))


def test_the_mode_is_left_as_it_was_and_nothing_learnt():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(7))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for training in (True, False):
        model.train(training)
        judged(Points(10), model)
        assert model.training is training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_mode_comes_back_after_an_error():
    class Broken(Points):
        def get_batch(self, indices, epoch):
            raise OSError(5, "the disk is gone")

    model = torch.nn.Linear(7, 7)
    with pytest.raises(OSError, match="the disk is gone"):
        judged(Broken(3), model)
    assert model.training


def test_sums_are_exact():
    values = torch.tensor([1e16, 1.0, -1e16, 1.0], dtype=torch.float64)
    assert exact_mean(values) == 0.5
    assert exact_mean(values.flip(0)) == 0.5
    assert math.isnan(exact_mean(torch.tensor([1.0, math.nan])))


def test_the_batch_does_not_depend_on_the_workers():
    assert evaluation_batch_size(64) == 64
    assert evaluation_batch_size(4096) == 256
