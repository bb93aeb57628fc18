"""The command line without a cluster: arguments, exit codes, texts."""

import json
import re
import subprocess
import sys

import click
import pytest

from orchestrator.cli.output import duration, table
from orchestrator.jobs.recipes import recipe_files
from orchestrator.results.status import one_line
from tests.architecture.cli_docs import commands


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("GCPCTL_HOME", str(tmp_path / "home with spaces"))
    monkeypatch.delenv("GCPCTL_PROFILE", raising=False)
    return tmp_path


def gcpctl(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", *args],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["subnit"], 2, "Did you mean 'submit'"),
        (["status", "--activ"], 2, "Did you mean '--active'"),
        (["submit", "train", "digits_resnet_isqt"], 5, "did you mean 'digits_resnet_isqrt'"),
        (["submit", "train", "no/such.yaml"], 5, "no recipe file"),
        (["submit", "train", "digits_resnet_isqrt", "optim.lrr=1"], 2, "did you mean"),
        (["submit", "train", "digits_resnet_isqrt", "--workers", "0"], 2, "not in the range"),
        (["submit", "train", "digits_resnet_isqrt", "--name", "Bad Name"], 2, "lower-case"),
        (["submit", "train", "digits_resnet_isqrt", "--workers", "512",
          "global_batch_size=512"], 7, "would never start"),
        (["submit", "train", "digits_resnet_isqrt", "--workers", "8:2"], 2, "so 2:8"),
        (["submit", "train", "digits_resnet_isqrt", "--workers", "5:7"], 2, "4 or 8 would"),
        (["submit", "train", "digits_resnet_isqrt", "init.weights=/no.pth"], 2, "no file /no.pth"),
        (["submit", "train", "digits_resnet_isqrt", "init.weights=some-job"], 3, "no cluster"),
        (["submit", "train", "digits_resnet_isqrt", "data=cifar10", "data.path=/no/such"], 2,
         "/no/such"),
        (["submit", "train", "imagenet_resnet"], 5, "what recipes build on"),
        (["recipes", "plot", "epochs=3"], 2, "at least one recipe"),
        (["recipes", "plot", "digits_resnet_isqrt", "--out", "/no/such/x.png"], 2, "cannot write"),
        (["submit", "train", "folder_resnet18_isqrt"], 2, "data.path"),
        (["submit", "train", "folder_resnet18_isqrt", "data.path=/no/such"], 2, "/no/such"),
        (["status"], 3, "no cluster here yet"),
        (["logs", "x"], 3, "no cluster here yet"),
        (["stop", "x"], 3, "no cluster here yet"),
        (["recipes", "check", "digits_resnet_isqrt", "epochs=-1"], 2, "epochs"),
    ],
)  # fmt: skip
def test_mistakes(home, args, code, words):
    answer = gcpctl(*args)
    assert words in answer.stderr
    assert answer.returncode == code
    assert "Traceback" not in answer.stderr
    assert answer.stdout == ""


def test_dry_run_prints_the_config_and_starts_nothing(home):
    answer = gcpctl("submit", "train", "digits_resnet_isqrt", "--dry-run", "seed=5")
    assert answer.returncode == 0
    assert "seed: 5" in answer.stdout
    assert not (home / "home with spaces").exists()


def test_lists_have_json(home):
    recipes = json.loads(gcpctl("recipes", "list", "-o", "json").stdout)
    assert "digits_resnet_isqrt" in {recipe["name"] for recipe in recipes}
    assert json.loads(gcpctl("version", "-o", "json").stdout)["gcpctl"]
    findings = json.loads(gcpctl("doctor", "-o", "json").stdout)
    assert {"subject", "verdict", "message", "remedy"} == set(findings[0])


def test_recipes_are_found_by_words_of_name_and_data(home):
    found = json.loads(gcpctl("recipes", "list", "cub200", "isqrt", "-o", "json").stdout)
    assert found
    assert all(r["data"] == "cub200" and "isqrt" in r["name"] for r in found)
    assert any(r["published"].get("top1") for r in found)
    assert "no recipe has nothing" in gcpctl("recipes", "list", "nothing").stderr


def test_studies_and_search_spaces_are_listed_in_sections_of_their_own(home):
    recipes, studies, spaces = gcpctl("recipes", "list", "digits").stdout.split("\n\n")
    assert recipes.split()[:4] == ["RECIPE", "DATA", "TOP-1", "DESCRIPTION"]
    assert re.search("^pooling +digits +Which pooling", studies, re.MULTILINE)
    assert spaces.split()[:3] == ["SEARCH", "SPACE", "DESCRIPTION"]
    assert re.search("^digits +Rates, decay and pooling", spaces, re.MULTILINE)
    listed = json.loads(gcpctl("recipes", "list", "--kind", "tune", "-o", "json").stdout)
    assert {space["name"] for space in listed} == set(recipe_files("tune"))
    assert all(space["description"] for space in listed)


def test_a_search_space_is_shown_and_named_where_a_recipe_is_wanted(home):
    shown = gcpctl("recipes", "show", "gcp_head").stdout
    assert "gcp_head.yaml" in shown.split("\n")[0]
    assert "model.head.reduced_channels=choice(16, 32, 64, 128)" in shown
    for words in (["show", "gcp_head", "--resolved"], ["check", "gcp_head"], ["plot", "gcp_head"]):
        answer = gcpctl("recipes", *words)
        assert answer.returncode == 2
        assert "is a search space" in answer.stderr
        assert "--space gcp_head" in answer.stderr


def test_a_recipe_is_shown_as_written_or_in_full(home):
    name = "imagenet_resnet50_isqrt_lrfast"
    written = gcpctl("recipes", "show", name).stdout
    assert "# builds on imagenet_resnet_lrfast: " in written
    assert "extends: imagenet_resnet_lrfast" in written
    assert "seed:" not in written
    full = gcpctl("recipes", "show", name, "--resolved", "epochs=7").stdout
    assert re.search(r"^epochs: 7 +# command line$", full, re.MULTILINE)
    assert re.search(r"^  path: /to/be/given +# to be given$", full, re.MULTILINE)
    assert "\nseed: 0\n" in full
    spec = json.loads(gcpctl("recipes", "show", name, "-o", "json").stdout)
    assert (spec["config"]["epochs"], spec["published"]["model"]) == (30, "ResNet-50")


def test_a_plot_is_written_and_named(home):
    out = home / "lr.png"
    answer = gcpctl("recipes", "plot", "digits_resnet_isqrt", "digits_resnet_gap", "epochs=7",
                    "--out", str(out))  # fmt: skip
    assert answer.stdout.splitlines()[-1] == str(out)
    assert out.read_bytes().startswith(b"\x89PNG")
    assert len(re.findall(r"^digits_resnet_\w+ +7 ", answer.stdout, re.MULTILINE)) == 2


def test_an_unknown_profile_lists_those_there_are(home, monkeypatch):
    monkeypatch.setenv("GCPCTL_PROFILE", "lab")
    answer = gcpctl("status")
    assert "lab" in answer.stderr
    assert "embedded" in answer.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell):
    assert "_GCPCTL_COMPLETE" in gcpctl("completion", shell).stdout


def test_a_closed_pipe_is_no_error():
    script = f"{sys.executable} -m orchestrator.cli.main recipes show digits_resnet_isqrt | head -1"
    answer = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert "Traceback" not in answer.stderr
    assert "Exception" not in answer.stderr


def test_every_command_has_help_that_begins_with_a_sentence():
    from orchestrator.cli.main import cli

    for path, command in commands(cli, ("gcpctl",)):
        assert command.help, path
        assert command.help.split("\n")[0].endswith("."), path
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help or parameter.name == "output", (path, parameter.name)


def test_table_cuts_the_last_column_only():
    text = table(("A", "B"), [("x" * 10, "y" * 50)], width=30)
    assert text.splitlines()[1] == "x" * 10 + "  " + "y" * 17 + "…"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3_700, "1 h 1 min"), (90_000, "1 d 1 h")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("no room\nat all", "no room"),
        (
            "ConfigError: train:\n  epochs: got 0\n  seed: got -1",
            "ConfigError: train: epochs: got 0",
        ),
        ("ConfigError:", "ConfigError:"),
        ("", ""),
    ],
)
def test_a_reason_of_several_lines_is_shown_with_its_first_fact(reason, line):
    assert one_line(reason) == line
