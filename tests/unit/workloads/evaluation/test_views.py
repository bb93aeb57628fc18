"""Which views are averaged, and what of them."""

import pytest
import torch

from workloads.data.bundle import PixelScale
from workloads.evaluation.views import average_logits

SCALE = PixelScale((0.0,), (1.0,))


class LeftColumn(torch.nn.Module):
    """Logits: the sums of the leftmost and of all other columns, squared: not linear."""

    def forward(self, images):
        columns = images.sum(dim=(1, 2))
        return torch.stack([columns[:, 0], columns[:, 1:].sum(1)], dim=1).square()


def bytes_of(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


def test_centre_is_the_network_itself():
    images, model = bytes_of(3, 1, 4, 4), LeftColumn()
    got = average_logits(model, images, scale=SCALE, crops="centre")
    assert torch.equal(got, model(SCALE(images)))


def test_flip_averages_the_logits_of_image_and_mirror_image():
    images, model = bytes_of(3, 1, 4, 4), LeftColumn()
    pixels = images.double() / 255
    want = (model(pixels) + model(pixels.flip(3))) / 2
    got = average_logits(model, images, scale=SCALE, crops="flip")
    assert torch.allclose(got.double(), want, rtol=1e-6)
    assert not torch.allclose(got.double(), model(pixels), rtol=1e-3)


def test_ten_averages_five_crops_and_their_mirror_images():
    images, model = bytes_of(3, 5, 1, 4, 4), LeftColumn()
    pixels = images.double() / 255
    ten = [view for v in range(5) for view in (pixels[:, v], pixels[:, v].flip(3))]
    want = torch.stack([model(view) for view in ten]).mean(dim=0)
    got = average_logits(model, images, scale=SCALE, crops="ten")
    assert torch.allclose(got.double(), want, rtol=1e-6)


def test_one_broken_view_breaks_the_answer():
    class Broken(torch.nn.Module):
        def forward(self, images):
            return torch.where(images[:, 0, 0, :2] > 0.5, torch.nan, 0.0)

    images = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    images[..., 1] = 255
    assert average_logits(Broken(), images, scale=SCALE, crops="flip").isnan().any()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_gives_float32_logits(precision):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4))
    images = bytes_of(8, 1, 4, 4)
    with torch.no_grad():
        exact = average_logits(model, images, scale=SCALE, crops="flip")
        half = average_logits(model, images, scale=SCALE, crops="flip", precision=precision)
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    assert torch.allclose(half, exact, atol=0.02)
