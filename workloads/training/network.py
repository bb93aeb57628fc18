"""The network as it is trained: parts held still, compiled, gradients averaged over ranks."""

import contextlib
import gc
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from workloads.config.errors import ConfigError, Problem
from workloads.training.run import Run
from workloads.worker.seeding import rng_state, set_rng_state


def prepare_network(run: Run) -> None:
    """Make the network ready for the epoch under way; called before its first step and a resume.

    Raises:
        ConfigError: The network cannot be compiled here.
    """
    run.network.train()
    changed = run.freezer.apply(run.state.epoch)
    if changed or not run.is_wrapped:
        run.network = run.model  # the old wrapper takes its hooks off the weights when it goes
        gc.collect()
        run.network = _wrap(run)
        run.is_wrapped = True
        with _nothing_changed(run), explained_compilation(run):
            _first_pass(run)


def _wrap(run: Run) -> nn.Module:
    """Compile where asked for, and average gradients over ranks where there are several.

    Buffers are not sent along with each step: in training every rank normalises by its own batch,
    and rank 0's running statistics are handed round before they are used.
    """
    network: nn.Module = run.model
    if run.config.compute.compile:
        network = torch.compile(network)
    if run.context.world_size == 1:
        return network
    on_gpu = run.context.device.type == "cuda"
    network = DistributedDataParallel(
        network,
        device_ids=[run.context.device] if on_gpu else None,
        gradient_as_bucket_view=True,
    )
    # Set afterwards: the keyword was renamed within the range of torch that we allow.
    network.broadcast_buffers = False
    return network


def _first_pass(run: Run) -> None:
    """Throw one pass away, so that what is arranged during the first is arranged.

    The averaging of gradients sorts its buckets anew after its first backward pass, and with three
    or more ranks another layout sums in another order: a training that goes on and one that was
    never interrupted must have the same. And a network that cannot be compiled is met here.
    """
    if run.network is run.model:
        return
    compute, device = run.config.compute, run.context.device
    side = run.config.train_image_size(min(run.state.epoch, run.config.epochs - 1))
    # A compiled program is of one shape; otherwise two images are enough for batch statistics.
    count = run.batch_size // run.num_parts if compute.compile else 2
    layout = torch.channels_last if compute.channels_last else torch.contiguous_format
    images = torch.zeros(count, run.data.in_channels, side, side, device=device)
    if run.config.cache_features is not None:
        images = torch.zeros_like(run.data.train.get_batch(torch.arange(count), 0)[0].float())
        images, layout = images.to(device), torch.contiguous_format
    with run.half_precision():
        logits = run.network(images.contiguous(memory_format=layout))
    logits.float().sum().backward()
    run.optimizer.zero_grad(set_to_none=True)


@contextlib.contextmanager
def _nothing_changed(run: Run) -> Iterator[None]:
    """Bring running statistics and random numbers back afterwards."""
    buffers = list(run.model.buffers())
    kept = [buffer.clone() for buffer in buffers]
    random = rng_state(run.context.device)
    yield
    for buffer, value in zip(buffers, kept, strict=True):
        buffer.copy_(value)
    set_rng_state(random, run.context.device)


@contextlib.contextmanager
def explained_compilation(run: Run) -> Iterator[None]:
    """Say of a failed compilation what to do without it.

    Raises:
        ConfigError: Instead of the compiler's own error.
    """
    if not run.config.compute.compile:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException  # seconds to import
    from torch._inductor.exc import InductorError

    try:
        yield
    except (TorchDynamoException, InductorError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        message = f"torch.compile failed: {' '.join(lines[:2]) or type(error).__name__}"
        hint = "write compute.compile=false; on a CPU it needs a C++ compiler"
        raise ConfigError("train", [Problem("compute.compile", message, hint)]) from error
