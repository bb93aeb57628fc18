"""What `python -m workloads.evaluation predict` says of files."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from workloads import answering
from workloads.data.sources import build_eval_data
from workloads.evaluation.__main__ import MISTAKES, VERBS
from workloads.evaluation.errors import EvaluationError
from workloads.evaluation.predict import predict_images


@pytest.fixture
def job(save_job, digits_state):
    return save_job(digits_state)


@pytest.fixture
def pictures(tmp_path, digits_config):
    """Twenty digits as PNG, named by what they are; and the pixels."""
    data = build_eval_data(digits_config.data, images=digits_config.images)
    images, labels = data.dataset.get_batch(torch.arange(20), 0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        # 16 is white in the digits, 255 in a file.
        gray = (image[0].float() * 255 / 16).round().to(torch.uint8).numpy()
        Image.fromarray(gray).save(folder / f"{number:02d}-{int(label)}.png")
    return folder


def test_digits_are_recognised(job, pictures):
    answer = predict_images({"weights": str(job), "images": [str(pictures)], "top": 3})
    assert answer["errors"] == []
    assert answer["classes_known"]
    assert "checkpoint, step 60" in answer["network"]
    assert [image["path"] for image in answer["images"]] == sorted(
        str(path) for path in pictures.iterdir()
    )
    right = 0
    for image in answer["images"]:
        first, *others = image["predictions"]
        assert len(others) == 2
        assert first["class"] == str(first["index"])
        assert 1 >= first["probability"] >= others[0]["probability"] >= others[1]["probability"]
        right += image["path"].endswith(f"-{first['class']}.png")
    assert right >= 16


def test_a_file_alone_gives_what_it_gives_among_others(job, pictures):
    paths = sorted(map(str, pictures.iterdir()))
    together = predict_images({"weights": str(job), "images": paths})["images"]
    alone = predict_images({"weights": str(job), "images": paths[3:4]})["images"]
    assert [p["index"] for p in alone[0]["predictions"]] == [
        p["index"] for p in together[3]["predictions"]
    ]
    for one, other in zip(alone[0]["predictions"], together[3]["predictions"], strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_bad_files_are_named_and_the_others_judged(job, pictures, tmp_path):
    torn = tmp_path / "torn.png"
    torn.write_bytes((pictures / sorted(p.name for p in pictures.iterdir())[0]).read_bytes()[:60])
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    empty = tmp_path / "empty"
    empty.mkdir()
    gone = tmp_path / "gone.png"
    good = sorted(pictures.iterdir())[0]
    answer = predict_images(
        {"weights": str(job), "images": [str(p) for p in (torn, text, good, empty, gone)]}
    )
    assert [image["path"] for image in answer["images"]] == [str(good)]
    messages = {error["path"]: error["message"] for error in answer["errors"]}
    assert messages.keys() == {str(torn), str(text), str(empty), str(gone)}
    assert messages[str(text)] == "is not an image"
    assert messages[str(gone)] == "there is no such file"
    assert "holds no images" in messages[str(empty)]
    assert str(torn) not in messages[str(torn)]


def test_an_image_without_a_finite_answer_is_named_and_the_others_judged(
    save_job, digits_state, tmp_path
):
    model = digits_state["model"]
    first = "features.stem.0.weight"
    huge = torch.full_like(model[first], 1e38)  # nine of them overflow
    weights = save_job({**digits_state, "model": {**model, first: huge}})
    shades = {"black": 0, "white": 255, "none": 0}
    for name, shade in shades.items():
        Image.new("L", (8, 8), shade).save(tmp_path / f"{name}.png")
    paths = [str(tmp_path / f"{name}.png") for name in shades]
    unscaled = {"size": 8, "resize": None, "mean": [0.0], "std": [1.0]}
    answer = predict_images({"weights": str(weights), "images": paths, "images_config": unscaled})
    assert [image["path"] for image in answer["images"]] == [paths[0], paths[2]]
    assert [error["path"] for error in answer["errors"]] == [paths[1]]
    assert "not finite" in answer["errors"][0]["message"]
    none = predict_images(
        {"weights": str(weights), "images": paths[1:2], "images_config": unscaled}
    )
    assert (none["images"], len(none["errors"])) == ([], 1)


def test_what_is_no_file_is_named_and_not_waited_for(job, pictures, tmp_path):
    pipe, too_long = tmp_path / "pipe.png", tmp_path / ("x" * 300)
    os.mkfifo(pipe)
    good = sorted(pictures.iterdir())[0]
    asked = [str(path) for path in (pipe, too_long, good)]
    answer = predict_images({"weights": str(job), "images": asked})
    assert [image["path"] for image in answer["images"]] == [str(good)]
    messages = {error["path"]: error["message"] for error in answer["errors"]}
    assert messages[str(pipe)] == "is no file of an image"
    assert messages[str(too_long)] == "File name too long"


def test_colour_images_of_any_size_go_through_the_checkpoints_own_form(job, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    path = tmp_path / "photo.jpg"
    Image.fromarray(pixels).save(path)
    answer = predict_images({"weights": str(job), "images": [str(path)], "top": 99})
    assert len(answer["images"][0]["predictions"]) == 10
    assert sum(p["probability"] for p in answer["images"][0]["predictions"]) == pytest.approx(1)


def test_outputs_without_names_are_called_by_number(tmp_path, pictures):
    import torchvision

    torch.manual_seed(0)
    path = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18(num_classes=4).state_dict(), path)
    picture = str(sorted(pictures.iterdir())[0])
    request = {"weights": str(path), "images": [picture]}
    answer = predict_images(request)
    assert not answer["classes_known"]
    assert {p["class"] for p in answer["images"][0]["predictions"]} == {"0", "1", "2", "3"}
    named = predict_images({**request, "classes": ["ant", "bee", "cat", "dog"]})
    for one, other in zip(
        answer["images"][0]["predictions"], named["images"][0]["predictions"], strict=True
    ):
        assert other["class"] == ["ant", "bee", "cat", "dog"][one["index"]]
    with pytest.raises(EvaluationError, match="1 classes are named"):
        predict_images({**request, "classes": ["ant"]})


def test_as_a_child_process(job, pictures):
    request = {"weights": str(job), "images": [str(sorted(pictures.iterdir())[0])], "top": 1}
    command = [sys.executable, "-m", "workloads.evaluation", "predict", json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert len(said["answer"]["images"][0]["predictions"]) == 1


def test_mistakes_are_told_as_json(tmp_path, capfd):
    request = json.dumps({"weights": str(tmp_path / "nothing.pth"), "images": ["x.png"]})
    error = answering.respond(VERBS["predict"], request, MISTAKES)["error"]
    assert "there is no file" in error["message"]
    assert error["exit_code"] == 5
    assert answering.answer(["predict"], "workloads.evaluation", VERBS, MISTAKES) == 2
    assert "usage: python -m workloads.evaluation" in capfd.readouterr().err
