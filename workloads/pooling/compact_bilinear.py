"""Compact bilinear pooling: a random sketch of the second moment (recipes: `cbp`).

Shape letters: B batch, D channels, M positions, S sketch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.pooling.base import GlobalPooling
from workloads.pooling.epn import ElementwisePower
from workloads.pooling.functional import widen

_ENTRIES_PER_POINT = 2.5
"""Entries of a second moment added to their places in the time of one point of a position's
transforms, forward and back, as measured on a CPU."""


class CompactBilinearPooling(GlobalPooling):
    """Pool features to signed roots of a random sketch of sum_n x_n x_n^T, of length one.

    (B, C, H, W) or (B, N, C) -> phi (B, sketch_size) -> sign(v) sqrt(|v| + eps) -> v / |v|, with
    phi = sum_n phi(x_n), a sum and no mean over the positions, and phi random such that the
    expectation of <phi(x), phi(y)> is <x, y>^2:

    - `tensor_sketch`: the circular convolution of two count sketches of x.
    - `random_maclaurin`: (W_1 x) * (W_2 x) / sqrt(sketch_size), W_1 and W_2 of random signs.

    Features of zeros give zero with zero gradient. Signs and hashes are saved with the weights.

    Args:
        in_channels: C.
        sketch: Which of the two.
        sketch_size: Width of the vector.
        seed: Of a generator of the layer's own; the program's is not touched.
        eps: Inside the root, where it bounds the derivative at zero by 1 / (2 sqrt(eps)).

    References:
        Gao, Beijbom, Zhang, Darrell, Compact Bilinear Pooling, CVPR 2016.
        Pham, Pagh, Fast and Scalable Polynomial Kernels via Explicit Feature Maps, KDD 2013.
        Kar, Karnick, Random Feature Maps for Dot Product Kernels, AISTATS 2012.

    Deviation:
        The tensor sketch is computed without Fourier transforms where that is cheaper, see
        `TensorSketch`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        sketch: str = "tensor_sketch",
        sketch_size: int = 8192,
        seed: int = 1,
        eps: float = 1e-8,
    ) -> None:
        if sketch not in SKETCHES:
            raise ValueError(f"sketch must be one of {', '.join(SKETCHES)}, got {sketch!r}")
        if sketch_size < 1:
            raise ValueError(f"sketch_size must be at least 1, got {sketch_size}")
        super().__init__(in_channels=in_channels, out_features=sketch_size)
        self.sketch = SKETCHES[sketch](in_channels, sketch_size, seed)
        self.power = ElementwisePower(eps=eps, l2="none")

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(device_type=x.device.type, enabled=False):
            z_BS = self.power(self.sketch(widen(self.positions_last(x))))
            return F.normalize(z_BS).to(x.dtype)

    def macs(self, num_positions: int) -> dict[str, int]:
        return {"sketch": num_positions * self.sketch.macs}


class TensorSketch(nn.Module):
    """Map features (B, D, M) to the sum over positions of their tensor sketch, (B, S).

    With hashes h_i(d) in [0, S) and signs s_i(d), the sketch of x at k is the sum of
    s_1(c) x_c s_2(d) x_d over all pairs of channels with h_1(c) + h_2(d) = k modulo S. It is
    linear in x x^T, so the sum over positions is that of the second moment: one product of
    matrices, and each of its D^2 entries added to its place. The usual way, by the convolution
    theorem, has 2 M transforms of length S and holds 2 M spectra for the backward pass; it is
    taken where D^2 is the larger (2048 channels at 49 positions and S = 8192: 9 ms an image
    instead of 45, forward and back on a CPU). Both give the same numbers up to rounding. An
    exported program adds entries whatever its size: it may leave M open, and not every format has
    transforms.

    On a GPU the order of the additions may differ between runs, in the last bits, unless
    `torch.use_deterministic_algorithms` is on.

    Args:
        in_channels: D.
        sketch_size: S.
        seed: Of the hashes and signs.
    """

    hashes_2D: Tensor
    signs_2D: Tensor

    def __init__(self, in_channels: int, sketch_size: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shape = (2, in_channels)
        self.sketch_size = sketch_size
        self.register_buffer("hashes_2D", torch.randint(sketch_size, shape, generator=generator))
        self.register_buffer("signs_2D", _random_signs(shape, generator))

    @property
    def macs(self) -> int:
        """Multiply-adds per position, by the convolution theorem: 3 transforms and a product.

        A transform of length S counts S log2(S) / 2 of complex numbers, a complex one four.
        """
        size = self.sketch_size
        return 2 * self.hashes_2D.shape[1] + 6 * size * (size - 1).bit_length() + 4 * size

    def forward(self, x_BDM: Tensor) -> Tensor:
        if not torch.compiler.is_exporting() and self._transforms_are_cheaper(x_BDM.shape[2]):
            return self._by_transforms(x_BDM)
        return self._by_entries(x_BDM)

    def _transforms_are_cheaper(self, positions: int) -> bool:
        channels = self.hashes_2D.shape[1]
        return channels**2 > _ENTRIES_PER_POINT * positions * self.sketch_size

    def _by_transforms(self, x_BDM: Tensor) -> Tensor:
        signed_2BMD = x_BDM.mT * self.signs_2D.to(x_BDM.dtype)[:, None, None]
        empty_BMS = x_BDM.new_zeros(x_BDM.shape[0], x_BDM.shape[2], self.sketch_size)
        one, two = (
            torch.fft.rfft(empty_BMS.index_add(2, hashes_D, signed_BMD))
            for hashes_D, signed_BMD in zip(self.hashes_2D, signed_2BMD, strict=True)
        )
        return torch.fft.irfft((one * two).sum(dim=1), n=self.sketch_size)

    def _by_entries(self, x_BDM: Tensor) -> Tensor:
        first_D1, second_D1 = self.signs_2D.to(x_BDM.dtype)[:, :, None]
        moment_BDD = (x_BDM * first_D1) @ (x_BDM * second_D1).transpose(1, 2)
        place_DD = (self.hashes_2D[0, :, None] + self.hashes_2D[1]) % self.sketch_size
        empty_BS = x_BDM.new_zeros(x_BDM.shape[0], self.sketch_size)
        return empty_BS.index_add(1, place_DD.flatten(), moment_BDD.flatten(1))


class RandomMaclaurin(nn.Module):
    """Map features (B, D, M) to the sum over positions of (W_1 x) * (W_2 x) / sqrt(S), (B, S).

    Args:
        in_channels: D.
        sketch_size: S.
        seed: Of W_1 and W_2, which are kept as bytes.
    """

    signs_2SD: Tensor

    def __init__(self, in_channels: int, sketch_size: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shape = (2, sketch_size, in_channels)
        self.register_buffer("signs_2SD", _random_signs(shape, generator))

    @property
    def macs(self) -> int:
        """Multiply-adds per position: two products with a matrix of signs, and one of vectors."""
        _, size, channels = self.signs_2SD.shape
        return 2 * size * channels + size

    def forward(self, x_BDM: Tensor) -> Tensor:
        first_SD, second_SD = self.signs_2SD.to(x_BDM.dtype)
        product_BSM = (first_SD @ x_BDM) * (second_SD @ x_BDM)
        return product_BSM.sum(dim=2) / first_SD.shape[0] ** 0.5


SKETCHES: dict[str, type[TensorSketch] | type[RandomMaclaurin]] = {
    "tensor_sketch": TensorSketch,
    "random_maclaurin": RandomMaclaurin,
}


def _random_signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw -1 or 1 as bytes."""
    return torch.randint(2, shape, generator=generator, dtype=torch.int8) * 2 - 1
