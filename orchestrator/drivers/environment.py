"""What a job ran on: packages, interpreter, machine."""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys


def describe_environment() -> str:
    """Return the environment of this process as JSON text; imports none of the packages."""
    packages = {
        dist.metadata["Name"]: dist.version
        for dist in importlib.metadata.distributions()
        if dist.metadata["Name"]
    }
    facts = {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "gpus": _gpus(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }
    return json.dumps(facts, indent=2)


def _processor() -> str:
    """Return the processor's name as Linux gives it; empty where it gives none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2].strip() for line in file if line[:10] == "model name"]
    except OSError:
        return ""
    return names[0] if names else ""


def _gpus() -> list[str]:
    """Return name and driver version of each GPU of this node."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return answer.stdout.strip().splitlines() if answer.returncode == 0 else []
