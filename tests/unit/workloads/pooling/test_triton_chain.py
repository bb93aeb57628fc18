"""The fused kernel without a GPU: its numbers in Triton's interpreter, its code by the compiler.

Both are settings of a process and so run in one of their own.
"""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from workloads.pooling import root_plan
from workloads.pooling.matrix_polynomials import MatrixPolynomial, NewtonSchulz, SquareChain
from workloads.pooling.root_plan import RootPlan, fused_chain, plan_root
from workloads.pooling.square_chain_tables import SQUARE_CHAINS

pytest.importorskip("triton", reason="no Triton on this platform")

INTERPRETED = """
import numpy as np, pytest, torch
from workloads.pooling import triton_chain
from workloads.pooling.fast_root import FastRoot
from workloads.pooling.matrix_polynomials import NewtonSchulz, SquareChain
from workloads.pooling.root_plan import RootPlan
from workloads.pooling.square_chain_tables import SQUARE_CHAINS
from workloads.pooling.triton_chain import FusedChain, checked_chain
from workloads.pooling.vectorise import mirrored, upper_rows

# Memory that a kernel reads without having written it is NaN.
torch.use_deterministic_algorithms(True)
torch.utils.deterministic.fill_uninitialized_memory = True
generator = torch.Generator().manual_seed(0)

def relative(got, want):
    return float((got.double() - want).norm() / want.norm())

def numpy_chain(rows, p, e):
    squares, changes, eye = [p], [e], np.eye(p.shape[-1])
    for row in rows[:-1]:
        line = row[0] * eye + sum(a * b for a, b in zip(row[1:], squares))
        change = sum(a * b for a, b in zip(row[1:], changes))
        squares.append(line @ line)
        changes.append(line @ change + change @ line)
    last = rows[-1]
    value = last[0] * eye + sum(a * b for a, b in zip(last[1:], squares))
    return value, sum(a * b for a, b in zip(last[1:], changes))

for num_iters, rows in SQUARE_CHAINS.items():
    for side in (1, 17, 48, 63) if num_iters == 5 else (16, 33):
        x, e = torch.randn(2, 3, side, side, generator=generator, dtype=torch.float64)
        p = x @ x.mT
        p /= p.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
        e = e + e.mT
        want, want_change = map(torch.from_numpy, numpy_chain(rows, p.numpy(), e.numpy()))
        p, e = p.float(), e.float()
        got, saved = FusedChain(rows).value(p)
        change = FusedChain(rows).derivative(saved, e.mT)
        assert relative(got, want) < 1e-5, (num_iters, side)
        assert relative(change, want_change) < 1e-5, (num_iters, side)
        plain, lines = SquareChain(rows).value(p)
        assert relative(got, plain.double()) < 1e-5
        assert relative(change, SquareChain(rows).derivative(lines, e).double()) < 1e-5

chain = FusedChain(SQUARE_CHAINS[5])
spoilt = torch.eye(20).repeat(3, 1, 1) / 20
spoilt[1, 2, 3] = torch.nan
value, saved = chain.value(spoilt)
change = chain.derivative(saved, torch.eye(20).repeat(3, 1, 1))
for result in (value, change):
    assert result.isfinite().flatten(1).all(1).tolist() == [True, False, True]
assert chain.value(torch.empty(0, 9, 9))[0].shape == (0, 9, 9)

# From features to vector and back, on both sides.
for channels, positions, by_gram in ((24, 17, True), (24, 12, True), (12, 30, False)):
    index = upper_rows(channels)
    results = []
    for dtype, polynomial in ((torch.float32, chain), (torch.float64, NewtonSchulz(5))):
        x = torch.randn(2, channels, positions, generator=torch.Generator().manual_seed(1))
        x = x.relu().to(dtype).requires_grad_()
        plan = RootPlan(5, "trace", True, by_gram, by_gram and positions == 17, polynomial)
        z = FastRoot.apply(x, index, mirrored(index, channels), plan)
        results.append((z.detach(), torch.autograd.grad(z.square().sum(), x)[0]))
    (got, grad), (want, want_grad) = results
    assert relative(got, want) < 1e-5
    assert relative(grad, want_grad) < 1e-4

# The self-test lets a right kernel pass, and no wrong one.
cpu = torch.device("cpu")
assert isinstance(checked_chain(SQUARE_CHAINS[5], 33, cpu), FusedChain)
exact = FusedChain.derivative
FusedChain.derivative = lambda *args: exact(*args) * 1.0001
with pytest.raises(ArithmeticError, match="off by 1.0e-04"):
    checked_chain(SQUARE_CHAINS[5], 33, cpu)
FusedChain.derivative = lambda *args: exact(*args) * torch.nan
with pytest.raises(ArithmeticError, match="off by nan"):
    checked_chain(SQUARE_CHAINS[5], 33, cpu)
"""

COMPILED = """
import pathlib, re, subprocess
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from workloads.pooling import triton_chain
from workloads.pooling.square_chain_tables import SQUARE_CHAINS

for n, capability, num_iters, kernel in (
    (48, 90, 5, triton_chain.value_kernel),
    (48, 90, 5, triton_chain.derivative_kernel),
    (49, 80, 3, triton_chain.value_kernel),
    (49, 80, 3, triton_chain.derivative_kernel),
):
    names = kernel.arg_names
    constants = {"ROWS": SQUARE_CHAINS[num_iters], "SIDE": 64, "STEP": 16}
    kinds = {
        name: "constexpr" if name in constants else "*fp32" if name.endswith("ptr") else "i32"
        for name in names
    }
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(names)
        if name not in constants and (name != "n" or n % 16 == 0)
    }
    source = ASTSource(
        kernel, kinds, {(names.index(k),): v for k, v in constants.items()}, aligned
    )
    options = {"num_warps": triton_chain.NUM_WARPS[64], "num_stages": 1}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    binary = pathlib.Path("kernel.cubin")
    binary.write_bytes(compiled.asm["cubin"])
    command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(binary)]
    usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(
        *re.search(r"REG:(\\d+) STACK:(\\d+)", usage).groups(),
        compiled.metadata.shared,
        "tf32" in compiled.asm["ptx"],
    )
"""


def run_alone(script: str, folder: Path, **env: str) -> str:
    root = Path(__file__).parents[4]
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(root),
            "OMP_NUM_THREADS": "1",
            "TRITON_CACHE_DIR": str(folder / "cache"),
            **env,
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_kernels_numbers(tmp_path: Path) -> None:
    run_alone(INTERPRETED, tmp_path, TRITON_INTERPRET="1")


@pytest.mark.skipif(sys.platform != "linux", reason="Triton's compiler is there on Linux only")
def test_compiles_without_spilling(tmp_path: Path) -> None:
    """The largest size for an H100 and an A100, aligned and not; registers are counted."""
    lines = run_alone(COMPILED, tmp_path, TRITON_INTERPRET="0")
    kernels = [line.split() for line in lines.splitlines()]
    assert len(kernels) == 4
    for registers, stack, shared, tf32 in kernels:
        assert int(registers) <= 255
        assert int(stack) <= 16  # a spilling version of this kernel had 600 to 13000 bytes
        assert int(shared) <= 48 * 1024
        assert tf32 == "False"


# Which way is chosen, and what happens where the kernel does not work.


def on_cuda(
    channels: int, positions: int, *, num_iters: int = 5, narrow: bool = False, wide: bool = False
) -> RootPlan:
    x = SimpleNamespace(
        shape=torch.Size((2, channels, positions)),
        dtype=torch.float64 if wide else torch.float32,
        device=torch.device("cuda:0"),
        is_cuda=True,
    )
    return plan_root(x, num_iters, "trace", centred=True, narrow=narrow)


class Fused(SquareChain):
    """Stands for the kernel."""


@pytest.mark.parametrize(
    ("channels", "positions", "num_iters", "narrow", "polynomial", "tf32"),
    [
        (256, 49, 5, False, Fused, False),
        (256, 65, 5, False, Fused, False),  # 64 after the reflection
        (64, 196, 3, False, Fused, False),
        (256, 49, 5, True, Fused, True),
        (256, 66, 5, False, SquareChain, False),
        (256, 196, 5, False, SquareChain, False),
        (256, 196, 5, True, NewtonSchulz, True),
        (256, 49, 6, False, NewtonSchulz, False),
        (256, 49, 6, True, NewtonSchulz, True),
        (256, 49, 7, True, NewtonSchulz, False),
    ],
)
def test_the_way_on_cuda(
    monkeypatch: pytest.MonkeyPatch,
    channels: int,
    positions: int,
    num_iters: int,
    narrow: bool,
    polynomial: type[MatrixPolynomial],
    tf32: bool,
) -> None:
    monkeypatch.setattr(root_plan, "fused_chain", lambda rows, side, device: Fused(rows))
    plan = on_cuda(channels, positions, num_iters=num_iters, narrow=narrow)
    assert (type(plan.polynomial), plan.tf32) == (polynomial, tf32)


def test_float64_and_cpus_have_neither_kernel_nor_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_plan, "fused_chain", lambda rows, side, device: Fused(rows))
    assert type(on_cuda(256, 49, wide=True).polynomial) is NewtonSchulz
    plan = plan_root(torch.empty(2, 256, 49), 5, "trace", centred=True, narrow=True)
    assert (type(plan.polynomial), plan.tf32) == (SquareChain, False)


@pytest.mark.parametrize("error", [ArithmeticError("off by 3.1e-04"), RuntimeError("no compiler")])
def test_a_kernel_that_fails_is_said_once_and_replaced(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from workloads.pooling import triton_chain

    def fail(rows: object, side: int, device: torch.device) -> None:
        raise error

    monkeypatch.setattr(triton_chain, "checked_chain", fail)
    fused_chain.cache_clear()
    try:
        with pytest.warns(UserWarning, match=f"without its fused kernel on cuda:0.*{error}"):
            plan = on_cuda(256, 49)
        assert type(plan.polynomial) is SquareChain
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert type(on_cuda(256, 49).polynomial) is SquareChain
            assert type(on_cuda(256, 49, narrow=True).polynomial) is NewtonSchulz
    finally:
        fused_chain.cache_clear()


def test_a_missing_triton_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "workloads.pooling.triton_chain", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    fused_chain.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"fused kernel on cuda:0.*triton"):
            assert fused_chain(SQUARE_CHAINS[5], 48, torch.device("cuda:0")) is None
    finally:
        fused_chain.cache_clear()
