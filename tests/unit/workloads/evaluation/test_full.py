"""From a config to files: the same for any number of workers, and right."""

import csv
import json
from dataclasses import dataclass, field

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from workloads.config.evaluate import EvalConfig
from workloads.config.model import ModelConfig
from workloads.data.errors import DataError
from workloads.data.sources import build_eval_data
from workloads.evaluation.classification import evaluate
from workloads.evaluation.errors import EvaluationError
from workloads.evaluation.full import evaluate_in_full
from workloads.evaluation.run import run_evaluation
from workloads.models.gcp_net import build_model
from workloads.models.weights.model_file import ModelFile, save_model

FILES = {
    "metrics.json",
    "per_class.csv",
    "confusion_matrix.csv",
    "confusion_matrix.png",
    "most_confused.csv",
    "calibration.png",
    "predictions.parquet",
}


@dataclass
class Context:
    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    progress: list = field(default_factory=list)
    stop: bool = False

    def report_progress(self, progress):
        self.progress.append(progress)

    def should_stop(self):
        return self.stop and self.rank == 0


@pytest.fixture
def job(save_job, digits_state):
    return save_job(digits_state)


def config_of(job, **changes):
    return EvalConfig.model_validate({"weights": str(job), "batch_size": 32, **changes})


def table(path):
    with path.open(newline="") as handle:
        return list(csv.reader(handle))


def test_one_two_and_three_workers_write_the_same_bytes(job, on_ranks, tmp_path):
    config = config_of(job)

    def action(rank, world_size):
        folder = tmp_path / f"of-{world_size}"
        result = run_evaluation(config, Context(rank, world_size), folder)
        return json.dumps(result.to_dict())

    results = [action(0, 1)]
    for world_size in (2, 3):
        results += on_ranks(lambda rank, n=world_size: action(rank, n), world_size)
    assert len(results) == 6
    assert set(results) == {results[0]}
    files = {path.name: path.read_bytes() for path in (tmp_path / "of-1").iterdir()}
    assert files.keys() == FILES
    for folder in ("of-2", "of-3"):
        assert {p.name: p.read_bytes() for p in (tmp_path / folder).iterdir()} == files


@pytest.mark.parametrize("crops", ["flip", "ten"])
def test_other_views_are_the_same_for_two_workers(job, on_ranks, crops):
    config = config_of(job, crops=crops, images={"size": 8, "resize": 12})

    def action(rank, world_size):
        found = evaluate_in_full(config, Context(rank, world_size))
        return json.dumps(found.result.to_dict()), found.outcomes.probabilities.tolist()

    alone = action(0, 1)
    assert on_ranks(lambda rank: action(rank, 2), 2) == [alone, alone]
    centre = evaluate_in_full(config_of(job, images={"size": 8, "resize": 12}), Context())
    assert centre.outcomes.probabilities.tolist() != alone[1]


def test_the_figures_are_those_of_a_plain_loop(job, digits_net, digits_config):
    result = evaluate_in_full(config_of(job), Context()).result
    data = build_eval_data(digits_config.data, images=digits_config.images)
    images, labels = data.dataset.get_batch(torch.arange(len(data.labels)), 0)
    with torch.no_grad():
        logits = digits_net(data.scale(images)).double()
    right = logits.argmax(1) == labels
    assert result.num_images == len(labels) == 359
    assert result.top1 == pytest.approx(100 * right.double().mean().item(), abs=1e-9)
    assert 80 < result.top1 < 100
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    assert result.loss == pytest.approx(loss, rel=1e-5)
    training_time = evaluate(
        digits_net, data.dataset, scale=data.scale, device=torch.device("cpu"), batch_size=32
    )
    assert (training_time.loss, training_time.top1, training_time.top5) == (
        result.loss,
        result.top1,
        result.top5,
    )


def test_what_the_files_say(job, tmp_path):
    folder = tmp_path / "out"
    result = run_evaluation(config_of(job, origin="train-x7:best"), Context(), folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["top1"] == result.top1
    assert metrics["origin"] == "train-x7:best"
    assert metrics["config"]["batch_size"] == 32
    assert sum(metrics["calibration"]["images"]) == 359

    predictions = pq.read_table(folder / "predictions.parquet")
    assert json.loads(predictions.schema.metadata[b"classes"]) == [str(i) for i in range(10)]
    rows = predictions.to_pylist()
    assert [row["index"] for row in rows] == list(range(359))
    assert 100 * np.mean([row["correct"] for row in rows]) == pytest.approx(result.top1)
    assert 100 * np.mean([r["label"] in r["top_classes"] for r in rows]) == pytest.approx(
        result.top5
    )
    assert np.mean([row["loss"] for row in rows]) == pytest.approx(result.loss, rel=1e-12)
    for row in rows:
        assert row["predicted"] == row["top_classes"][0]
        assert row["confidence"] == row["top_probabilities"][0]
        assert row["top_probabilities"] == sorted(row["top_probabilities"], reverse=True)
        if row["correct"]:
            assert row["loss"] == pytest.approx(-np.log(row["confidence"]), rel=1e-4, abs=1e-6)

    header, *matrix = table(folder / "confusion_matrix.csv")
    assert header == ["true", *(str(i) for i in range(10))]
    counts = np.array([[int(cell) for cell in row[1:]] for row in matrix])
    by_hand = np.zeros((10, 10), dtype=int)
    for row in rows:
        by_hand[row["label"], row["predicted"]] += 1
    assert np.array_equal(counts, by_hand)

    header, *classes = table(folder / "per_class.csv")
    assert header == [
        "index",
        "class",
        "support",
        "predicted",
        "correct",
        "recall",
        "precision",
        "f1",
    ]
    assert [int(row[2]) for row in classes] == by_hand.sum(1).tolist()
    assert [float(row[5]) for row in classes] == pytest.approx(by_hand.diagonal() / by_hand.sum(1))
    assert np.mean([float(row[5]) for row in classes]) * 100 == pytest.approx(
        result.mean_class_recall
    )

    _, *pairs = table(folder / "most_confused.csv")
    assert sum(int(pair[2]) for pair in pairs) == 359 - by_hand.diagonal().sum()
    worst = max(by_hand[i, j] for i in range(10) for j in range(10) if i != j)
    assert int(pairs[0][2]) == worst


def test_a_network_that_says_nan(job, digits_state, save_job, tmp_path):
    broken = {**digits_state, "model": dict(digits_state["model"])}
    name = "head.classifier.bias"
    broken["model"][name] = torch.full_like(broken["model"][name], torch.nan)
    result = run_evaluation(config_of(save_job(broken, name="broken")), Context(), tmp_path / "out")
    assert (result.top1, result.non_finite_images) == (0.0, 359)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["loss"] is None
    assert metrics["ece"] is None
    assert "loss" not in result.metrics()
    assert "359 images have logits that are not finite" in metrics["notes"][0]
    rows = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    assert rows[0]["predicted"] is None
    assert rows[0]["top_classes"] is None


def test_the_training_split(job):
    result = evaluate_in_full(config_of(job, split="train"), Context()).result
    assert result.num_images == 1797 - 359


# --- images of others ----------------------------------------------------------------------------


@pytest.mark.parametrize("crops", ["centre", "ten"])
def test_a_published_file_on_a_folder_of_images(tmp_path, crops):
    """Against torchvision's own network, on crops that are cut here by hand."""
    import torchvision

    torch.manual_seed(0)
    published = torchvision.models.resnet18(num_classes=2).eval()
    torch.save(published.state_dict(), tmp_path / "resnet18.pth")
    random = np.random.default_rng(0)
    pictures = []
    for split in ("train", "val"):
        for name in ("café, noir", "$tea$"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(3):
                pixels = random.integers(0, 256, (40 + 3 * number, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
                if split == "val":
                    pictures.append((f"val/{name}/{number}.png", name, pixels))
    config = EvalConfig.model_validate(
        {
            "weights": str(tmp_path / "resnet18.pth"),
            "data": {"name": "image_folder", "path": str(tmp_path / "images")},
            "images": {"size": 32, "resize": 40},
            "crops": crops,
            "batch_size": 4,
        }
    )
    result = run_evaluation(config, Context(), tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    pictures.sort()
    assert [row["name"] for row in rows] == [name for name, _, _ in pictures]
    assert result.num_images == 6
    assert any("do not name their classes" in note for note in result.notes)
    classes = sorted({label for _, label, _ in pictures})
    for row, (_, label, pixels) in zip(rows, pictures, strict=True):
        assert classes[row["label"]] == label
        logits = published(views_by_hand(pixels, config)).mean(0)
        assert row["confidence"] == pytest.approx(logits.softmax(0).max().item(), abs=2e-3)


def views_by_hand(pixels, config):
    from torchvision.transforms.v2 import functional as F

    images = config.images
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    image = F.resize(image, [images.resize], antialias=True)
    views = [F.center_crop(image, [images.size] * 2)]
    if config.crops == "ten":
        crops = F.five_crop(image, [images.size] * 2)
        views = [view for crop in crops for view in (crop, crop.flip(-1))]
    scaled = torch.stack(views).float() / 255
    return F.normalize(scaled, list(images.mean), list(images.std))


# --- refusals ------------------------------------------------------------------------------------


def permuted_file(path, tiny_model, digits_net, order, classes=None):
    """The same network with its outputs in another order."""
    state = dict(digits_net.state_dict())
    for name in ("head.classifier.weight", "head.classifier.bias"):
        state[name] = state[name][torch.tensor(order)]
    model = ModelFile(tiny_model, in_channels=1, num_classes=10, state=state, classes=classes)
    save_model(model, path)
    return path


ORDER = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]


def test_a_permuted_network_is_explained_and_not_scored(tiny_model, digits_net, tmp_path):
    path = permuted_file(tmp_path / "net.gcpnet", tiny_model, digits_net, ORDER)
    with pytest.raises(EvaluationError, match="outputs stand in another order") as caught:
        run_evaluation(config_of(path), Context(), tmp_path / "out")
    for output, digit in enumerate(ORDER[:1]):
        assert f"output {output} stands for class {digit}, '{digit}'" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_permuted_network_with_names_is_refused_before_it_runs(tiny_model, digits_net, tmp_path):
    names = tuple(str(digit) for digit in ORDER)
    path = permuted_file(tmp_path / "net.gcpnet", tiny_model, digits_net, ORDER, names)
    context = Context()
    with pytest.raises(EvaluationError, match=r"output 0: '3', the data's class 0: '0'"):
        evaluate_in_full(config_of(path), context)
    assert context.progress == []


def test_names_given_by_hand_settle_the_order(tiny_model, digits_net, tmp_path):
    """Somebody who says that the order is right gets the number, however bad."""
    path = permuted_file(tmp_path / "net.gcpnet", tiny_model, digits_net, ORDER)
    names = [str(digit) for digit in range(10)]
    result = evaluate_in_full(config_of(path, classes=tuple(names)), Context()).result
    assert result.top1 < 40
    with pytest.raises(EvaluationError, match=r"classes=\[...\] and the data have the same 10"):
        evaluate_in_full(config_of(path, classes=tuple(names[::-1])), Context())


def test_all_ranks_refuse_alike(tiny_model, digits_net, tmp_path, on_ranks):
    path = permuted_file(tmp_path / "net.gcpnet", tiny_model, digits_net, ORDER)
    config = config_of(path)
    one, two = on_ranks(lambda r: evaluate_in_full(config, Context(r, 2)), 2)
    assert one == two
    assert one.startswith("EvaluationError: the network's outputs stand in another order")


def test_weights_that_differ_between_ranks(job, save_job, digits_state, tmp_path, on_ranks):
    other = {**digits_state, "model": {k: v + 1 for k, v in digits_state["model"].items()}}
    jobs = [job, save_job(other, name="other")]
    said = on_ranks(
        lambda r: run_evaluation(config_of(jobs[r]), Context(r, 2), tmp_path / "out"), 2
    )
    assert all("rank 1 on" in text and "weights" in text for text in said)


def test_images_that_the_network_cannot_take(tmp_path):
    document = {"backbone": {"name": "small_resnet", "width": 4, "blocks": [1, 1, 1]}}
    config = ModelConfig.model_validate(document)
    state = build_model(config, in_channels=1, num_classes=10).state_dict()
    path = tmp_path / "net.gcpnet"
    save_model(ModelFile(config, in_channels=1, num_classes=10, state=state), path)
    with pytest.raises(EvaluationError, match=r"needs a map of more than one position"):
        evaluate_in_full(config_of(path, images={"size": 4, "resize": 4}), Context())


def test_missing_data(job, tmp_path):
    data = {"name": "image_folder", "path": str(tmp_path / "nowhere")}
    with pytest.raises((DataError, EvaluationError)):
        evaluate_in_full(config_of(job, data=data), Context())


def test_other_preprocessing_is_noted(job):
    images = {"size": 8, "resize": 10}
    result = evaluate_in_full(config_of(job, images=images), Context()).result
    assert any("resize None in training, 10 here" in note for note in result.notes)


# --- the surroundings ----------------------------------------------------------------------------


def test_progress_is_shown(job, tmp_path):
    context = Context()
    run_evaluation(config_of(job), context, tmp_path / "out")
    first, *_, last = context.progress
    assert (first.phase, first.global_step, first.total_steps) == ("evaluate", 0, 12)
    assert last.phase == "finished"
    assert last.val_top1 > 80


def test_a_stop_leaves_nothing_behind(job, tmp_path, on_ranks):
    config, folder = config_of(job), tmp_path / "out"
    assert run_evaluation(config, Context(stop=True), folder) is None
    assert on_ranks(lambda r: run_evaluation(config, Context(r, 2, stop=True), folder), 2) == [
        None,
        None,
    ]
    assert not folder.exists()
