"""`gcpctl model list | show`, and the child process behind them."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from orchestrator.cli import child, network_page
from orchestrator.cli.commands import model as commands
from orchestrator.cli.network_page import _macs
from orchestrator.cli.networks import complete_networks, find_network
from orchestrator.jobs.errors import GcpctlError, NotFoundError
from tests.unit.orchestrator.test_cli import gcpctl
from workloads.config.errors import ConfigError
from workloads.models.__main__ import respond

# --- which network is meant ----------------------------------------------------------------------


def test_a_zoo_name_is_itself():
    network = find_network("resnet50_isqrt_256")
    assert (network.origin, network.zoo_name) == ("zoo", "resnet50_isqrt_256")
    assert (network.image_size, network.in_channels, network.num_classes) == (224, 3, 1000)


def test_overrides_change_the_network_and_find_its_name():
    network = find_network("resnet50_isqrt_256", ["model.head.reduced_channels=128"])
    assert network.zoo_name == "resnet50_isqrt_128"
    network = find_network("resnet50_isqrt_256", ["backbone.last_stride=2"])
    assert network.zoo_name is None
    assert network.model.backbone.last_stride == 2
    assert find_network("resnet50_isqrt_256", num_classes=200).zoo_name is None


def test_another_choice_drops_the_options_of_the_old_one():
    network = find_network("resnet50_isqrt_256", ["backbone=vgg16", "head.pooling=gap"])
    assert network.model.backbone.name == "vgg16"
    assert network.model.head.pooling.name == "gap"


def test_a_recipe_is_its_network_on_its_images():
    digits = find_network("digits_resnet_isqrt")
    assert (digits.image_size, digits.in_channels, digits.num_classes) == (8, 1, 10)
    assert digits.zoo_name == "small_resnet_isqrt_32"
    folder = find_network("folder_resnet18_isqrt")
    assert folder.zoo_name == "resnet18_isqrt_256"


def test_a_recipe_file_is_read(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "model: {backbone: {name: resnet18}}\ndata: {name: image_folder, image_size: 96}\n"
    )
    network = find_network(str(file), num_classes=7)
    assert (network.origin, network.image_size, network.num_classes) == (str(file), 96, 7)


@pytest.mark.parametrize(
    ("name", "overrides", "options", "error", "words"),
    [
        ("resnet50_isqrt_265", [], {}, NotFoundError, "no network or recipe"),
        ("no/such.yaml", [], {}, NotFoundError, "no recipe file"),
        ("resnet50_gap", ["head.reduced=1"], {}, ConfigError, "head.reduced: unknown key"),
        ("resnet50_gap", ["head.pooling"], {}, ConfigError, "has no '='"),
        ("resnet50_gap", ["epochs=2"], {}, ConfigError, "unknown key"),
        ("alexnet_gap", [], {"image_size": 20}, ConfigError, "it takes 63 pixels and more"),
        ("resnet18_isqrt_64", [], {"image_size": 16}, ConfigError, "it takes 17 pixels and more"),
        ("deit_small", [], {"image_size": 384}, ConfigError, "backbone.image_size=384"),
    ],
)
def test_mistakes_in_names_overrides_and_images(name, overrides, options, error, words):
    with pytest.raises(error, match=words):
        find_network(name, overrides, **options)


def test_an_unknown_name_has_its_closest():
    with pytest.raises(NotFoundError) as caught:
        find_network("resnet50_isqrt_265")
    assert "did you mean 'resnet50_isqrt_256'?" in caught.value.hint
    assert "gcpctl model list" in caught.value.hint


def test_names_of_networks_and_recipes_are_completed():
    assert complete_networks(None, None, "resnet50_is") == [
        "resnet50_isqrt_64", "resnet50_isqrt_128", "resnet50_isqrt_160", "resnet50_isqrt_256"
    ]  # fmt: skip
    assert "digits_resnet_isqrt" in complete_networks(None, None, "digits_")


# --- commands ------------------------------------------------------------------------------------


@pytest.fixture
def model(monkeypatch):
    """Run `gcpctl model ...` with the child's work done in this process, which has torch."""

    def ask(verb, request):
        said = json.loads(json.dumps(respond(verb, json.dumps(request))))
        if "error" in said:
            raise GcpctlError(**said["error"])
        return said["answer"]

    def run(*arguments, code=0):
        result = CliRunner().invoke(commands.model, arguments)
        assert result.exit_code == (1 if result.exception else 0), result.output
        if isinstance(result.exception, GcpctlError):
            assert result.exception.exit_code == code
        elif result.exception:
            raise result.exception
        return result

    monkeypatch.setattr(commands, "ask_models", ask)
    monkeypatch.setattr(network_page, "ask_models", ask)
    return run


def test_list_needs_no_torch():
    code = (
        "import sys, orchestrator.cli.main as m\n"
        "m.cli.main(['model', 'list'], standalone_mode=False)\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"
    assert "resnet50_isqrt_256" in done.stdout
    assert "78.56  LRnorm" in done.stdout


def test_list_matches_and_counts(model):
    answer = model("list", "--match", "small_resnet", "--counts", "-o", "json")
    found = {item["name"]: item for item in json.loads(answer.stdout)}
    assert set(found) == {
        "small_resnet_gap", "small_resnet_isqrt_32", "small_resnet_dropcov_32"
    }  # fmt: skip
    assert found["small_resnet_isqrt_32"]["parameters"] == 84_042
    assert found["small_resnet_isqrt_32"]["vector_width"] == 528
    assert found["small_resnet_isqrt_32"]["published_top1"] is None


def test_a_list_with_counts_is_a_table(model):
    lines = model("list", "--match", "small_resnet", "--counts").stdout.splitlines()
    assert lines[0].split() == [
        "NAME", "IMAGE", "POSITIONS", "VECTOR", "M", "PARAM", "GMACS", "TOP-1", "SCHEDULE"
    ]  # fmt: skip
    row = ["small_resnet_isqrt_32", "8", "16", "528", "0.08", "0.003", "-", "-"]
    assert lines[2].split() == row


def test_list_without_a_match_is_empty_and_says_so(model):
    answer = model("list", "--match", "nothing")
    assert answer.stdout == ""
    assert "no network's name contains 'nothing'" in answer.stderr


def test_a_network_judged_by_its_class_token_pools_nothing(model):
    found = {item["name"]: item for item in json.loads(model("list", "-o", "json").stdout)}
    assert (found["deit_small"]["positions"], found["deit_small"]["pooling"]) == (0, None)
    page = model("show", "deit_small").stdout
    assert "the class token alone" in page
    assert "head.token_classifier" in page
    assert "reduction" not in page


def test_show_as_a_page():
    answer = gcpctl("model", "show", "resnet18_isqrt_256")
    assert answer.returncode == 0, answer.stderr
    for words in (
        "after layer4, 512 channels, 14x14 = 196 positions",
        "32,896 wide, upper_rows",
        "44,205,096",
        "3.105 G",
        "75.48  92.23  LRnorm",
        "GCP_Optimization README.md",
    ):
        assert words in answer.stdout
    assert max(map(len, answer.stdout.splitlines())) <= 100


def test_show_of_a_changed_network_has_no_published_number(model):
    options = ("small_resnet_isqrt_32", "backbone.width=8")
    found = json.loads(model("show", *options, "-o", "json").stdout)
    assert (found["published"], found["zoo_name"]) == ([], None)
    assert found["model"]["backbone"]["width"] == 8
    assert "No published number for this configuration." in model("show", *options).stdout


def test_show_names_the_network_that_a_recipe_is(model):
    page = model("show", "folder_resnet18_isqrt").stdout
    assert "(the same as" in page
    assert "75.48" in page


def test_show_has_the_doubts(model):
    page = model("show", "resnet18_dropcov_128").stdout
    assert "Doubts about published numbers\nD2: The GFLOPs printed" in page


def test_what_only_building_tells_is_the_commands_error(model):
    options = ("resnet50_gap", "backbone={name: torchvision, model: resnet18}")
    result = model("show", *options, "--image-size", "1", "backbone.node=layer9", code=2)
    assert "no layer of resnet18 named 'layer9'" in result.exception.message


# --- the child -----------------------------------------------------------------------------------


def use_child(monkeypatch, code):
    """Let `ask_models` run a program of our own."""
    run = subprocess.run
    monkeypatch.setattr(
        child.subprocess, "run", lambda _command, **options: run(
            [sys.executable, "-c", code], **options
        ),
    )  # fmt: skip


def test_an_answer_comes_back(monkeypatch):
    use_child(monkeypatch, 'print(\'{"answer": {"a": 1}}\')')
    assert child.ask_models("count", {}) == {"a": 1}


def test_an_error_keeps_its_exit_code(monkeypatch):
    use_child(
        monkeypatch,
        'print(\'{"error": {"message": "m", "hint": "h", "exit_code": 6}}\')',
    )
    with pytest.raises(GcpctlError) as caught:
        child.ask_models("count", {})
    assert (caught.value.message, caught.value.hint, caught.value.exit_code) == ("m", "h", 6)


@pytest.mark.parametrize(
    ("code", "words", "hint"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was killed by signal 9", "memory"),
        ("raise SystemError('the reason')", "the reason", "defect"),
    ],
)
def test_a_child_without_an_answer_is_quoted(monkeypatch, code, words, hint):
    use_child(monkeypatch, code)
    with pytest.raises(GcpctlError) as caught:
        child.ask_models("count", {})
    assert words in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 1


def test_what_libraries_print_does_not_spoil_the_answer():
    code = (
        "import sys, workloads.models.__main__ as seam\n"
        "def verb(request):\n"
        "    print('noise'); return dict(request)\n"
        "sys.modules['noisy'] = seam\n"
        "seam.verb = verb\n"
        "seam.VERBS['noisy'] = 'noisy:verb'\n"
        "sys.exit(seam.main(['noisy', '{\"a\": 1}']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"answer": {"a": 1}}
    assert "noise" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["count"], ["sing", "{}"]])
def test_a_wrong_verb_is_refused(arguments):
    done = subprocess.run(
        [sys.executable, "-m", "workloads.models", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "usage: python -m workloads.models" in done.stderr


@pytest.mark.parametrize(
    ("macs", "text"),
    [(0, "-"), (5_280, "5.280 k"), (18_432, "0.018 M"), (33_000_000, "0.033 G"),
     (15_346_630_656, "15.347 G")],
)  # fmt: skip
def test_multiply_adds_have_a_unit(macs, text):
    assert _macs(macs) == text
