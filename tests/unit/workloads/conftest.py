"""What holds for all tests of networks and their training."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _forks_can_differentiate() -> None:
    """Let torch start its threads for backward passes before anything is compiled.

    It starts them at the first backward pass, for the devices known then, and refuses to
    differentiate in a fork once there are any. `torch.compile` makes a device known that a machine
    without accelerators has not; several tests run ranks as forks.
    """
    torch.zeros(1, requires_grad=True).sum().backward()
