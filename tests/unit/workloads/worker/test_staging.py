"""Copies that share nothing with the training, in memory that is used again."""

from collections import OrderedDict

import pytest
import torch

from workloads.worker.staging import StagingArea


def make_state(value):
    model = OrderedDict(w=torch.full((4, 3), value), n=torch.tensor(int(value)))
    model._metadata = {"": {"version": 1}}
    return {
        "model": model,
        "optimizer": {
            "state": {0: {"m": torch.full((5,), value)}},
            "param_groups": [{"lr": value}],
        },
        "ranks": [(torch.arange(3), "text", None, True)],
        "step": int(value),
    }


def test_all_of_a_state_is_copied():
    state = make_state(1.0)
    copied, wait = StagingArea().copy(state)
    wait()
    state["model"]["w"].zero_()
    state["optimizer"]["state"][0]["m"].zero_()
    state["optimizer"]["param_groups"][0]["lr"] = 9.0
    assert torch.equal(copied["model"]["w"], torch.ones(4, 3))
    assert torch.equal(copied["optimizer"]["state"][0]["m"], torch.ones(5))
    assert copied["optimizer"]["param_groups"] == [{"lr": 1.0}]
    assert isinstance(copied["model"], OrderedDict)
    assert copied["model"]._metadata == {"": {"version": 1}}
    (rank,) = copied["ranks"]
    assert isinstance(rank, tuple)
    assert rank[1:] == ("text", None, True)
    assert copied["step"] == 1


def test_memory_is_used_again():
    area = StagingArea()
    first = area.copy(make_state(1.0))[0]
    pointers = first["model"]["w"].data_ptr(), first["ranks"][0][0].data_ptr()
    second = area.copy(make_state(2.0))[0]
    assert (second["model"]["w"].data_ptr(), second["ranks"][0][0].data_ptr()) == pointers
    assert torch.equal(second["model"]["w"], torch.full((4, 3), 2.0))
    assert torch.equal(second["model"]["n"], torch.tensor(2))


@pytest.mark.parametrize(
    "other", [torch.ones(4, 4), torch.ones(4, 3, dtype=torch.float64), torch.ones(())]
)
def test_another_tensor_in_the_same_place_is_not_cast(other):
    area = StagingArea()
    area.copy({"w": torch.zeros(4, 3), "gone": torch.zeros(2)})
    copied = area.copy({"w": other})[0]
    assert copied["w"].dtype == other.dtype
    assert torch.equal(copied["w"], other)


def test_a_view_does_not_bring_its_whole_storage():
    large = torch.zeros(1000)
    assert StagingArea().copy({"w": large[:10]})[0]["w"].untyped_storage().nbytes() == 40


def test_layout_and_gradients():
    weight = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    copied = StagingArea().copy({"w": torch.nn.Parameter(weight)})[0]["w"]
    assert copied.stride() == weight.stride()
    assert not copied.requires_grad
    assert torch.equal(copied, weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_large_tensors_of_any_type_and_layout(dtype, layout):
    area = StagingArea()
    area.copy({"w": torch.zeros(16, 64, 32, 33).to(dtype)})
    tensor = torch.randint(0, 2, (16, 64, 32, 33)).to(dtype).contiguous(memory_format=layout)
    assert torch.equal(area.copy({"w": tensor})[0]["w"], tensor)
    assert torch.equal(StagingArea().copy({"w": tensor})[0]["w"], tensor)
    part = tensor[:, 1:, :, ::2]
    assert torch.equal(StagingArea().copy({"w": part})[0]["w"], part)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_copy_from_a_gpu_is_ordered_between_the_steps():
    area = StagingArea()
    weight = torch.zeros(1 << 24, device="cuda")
    for step in range(1, 6):
        weight += 1.0
        copied, wait = area.copy({"w": weight, "cpu": torch.tensor(step)})
        weight += 1.0  # at once: must not be seen
        wait()
        assert copied["w"].is_pinned()
        assert torch.equal(copied["w"], torch.full((1 << 24,), 2.0 * step - 1.0))
        assert copied["cpu"] == step
