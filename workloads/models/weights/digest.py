"""One name for the weights of a network, equal wherever the bits are equal."""

import hashlib

import torch
from torch import nn


def digest_weights(model: nn.Module) -> str:
    """Return the SHA-256 of all names, types, shapes and bytes of a model's state."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
