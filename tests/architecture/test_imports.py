"""What may import what, and what a light command may not load."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "torchvision", "ray", "mlflow", "sklearn", "pandas", "numpy", "pyarrow"}


def test_import_contracts():
    linter = Path(sys.executable).with_name("lint-imports")
    answer = subprocess.run(
        [str(linter), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has after running `code`."""
    answer = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.split(".")[0] for name in answer.stderr.split()}


def test_help_imports_next_to_nothing():
    code = (
        "from orchestrator.cli.main import cli\n"
        "cli.main(['--help'], standalone_mode=False, prog_name='gcpctl')"
    )
    modules = loaded_by(code)
    assert not modules & (HEAVY | {"pydantic", "yaml", "rich", "urllib3", "aiohttp"})


@pytest.mark.parametrize(
    "command", ["status", "logs", "stop", "retry", "ui", "doctor", "cluster", "compare", "report"]
)
def test_light_commands_import_no_heavy_package(command):
    modules = loaded_by(f"import orchestrator.cli.commands.{command}")
    assert not modules & (HEAVY | {"pydantic", "rich"}), modules & (HEAVY | {"pydantic", "rich"})


def test_submit_plans_without_torch_ray_or_mlflow():
    code = (
        "import orchestrator.cli.commands.submit\n"
        "from orchestrator.jobs.plan import Request, plan_train\n"
        "plan_train('digits_resnet_isqrt', ['epochs=2'], Request())"
    )
    assert not loaded_by(code) & HEAVY


@pytest.mark.parametrize("backbone", ["small_resnet", "resnet50", "vgg16", "deit_small"])
def test_a_worker_loads_no_other_library_of_networks(backbone):
    code = (
        "import torch\n"
        "from workloads.config.model import ModelConfig\n"
        "from workloads.models.gcp_net import build_model\n"
        f"config = ModelConfig.model_validate({{'backbone': {{'name': {backbone!r}}}}})\n"
        "with torch.device('meta'):\n"
        "    build_model(config, in_channels=3, num_classes=10)"
    )
    assert not loaded_by(code) & {"torchvision", "timm", "onnx", "safetensors"}


def test_the_controller_is_light():
    assert not loaded_by("import orchestrator.controller.loop") & HEAVY


def test_the_driver_needs_no_torch_and_no_mlflow():
    modules = loaded_by("import orchestrator.drivers.main, orchestrator.drivers.ray_train")
    assert not modules & {"torch", "mlflow", "torchvision"}
