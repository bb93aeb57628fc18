"""What holds for all tests of networks and their training."""

import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist


@pytest.fixture(scope="session", autouse=True)
def _forks_can_differentiate() -> None:
    """Let torch start its threads for backward passes before anything is compiled.

    It starts them at the first backward pass, for the devices known then, and refuses to
    differentiate in a fork once there are any. `torch.compile` makes a device known that a machine
    without accelerators has not; several tests run ranks as forks.
    """
    torch.zeros(1, requires_grad=True).sum().backward()


@pytest.fixture
def on_ranks(tmp_path: Path) -> Callable[..., list[Any]]:
    """Run an action on forked ranks over gloo; return what each returned or raised, as text."""

    def run(action: Callable[[int], Any], world_size: int = 2) -> list[Any]:
        number = len(list(tmp_path.glob("store-*")))
        store = tmp_path / f"store-{number}"
        store.touch()
        children = []
        for rank in range(world_size):
            out = tmp_path / f"out-{number}-{rank}"
            pid = os.fork()
            if pid == 0:
                try:
                    dist.init_process_group(
                        "gloo",
                        init_method=f"file://{store}.init",
                        rank=rank,
                        world_size=world_size,
                        timeout=timedelta(seconds=60),
                    )
                    torch.save(action(rank), out)
                except BaseException as error:
                    traceback.print_exc()
                    torch.save(f"{type(error).__name__}: {error}", out)
                finally:
                    os._exit(0)
            children.append((pid, out))
        for pid, _ in children:
            os.waitpid(pid, 0)
        return [torch.load(out) for _, out in children]

    return run
