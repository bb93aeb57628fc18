import math
from statistics import mean

import pytest
import torch

from workloads.config.images import MixConfig
from workloads.training.mix import Draw, cut_box, draw_mix, mix_batch

MIXUP = MixConfig(mixup=0.8, cutmix=0.0)
CUTMIX = MixConfig(mixup=0.0, cutmix=1.0)
BOTH = MixConfig()


def batch(size=8, side=12):
    """Image i holds i + 1 everywhere, with label i: shares can be read off the pixels."""
    values = torch.arange(1.0, size + 1.0, dtype=torch.float64)
    images = values.view(-1, 1, 1, 1).expand(size, 3, side, side + 4).contiguous()
    return images, torch.arange(size)


def draws(config, count=4000, seed=0):
    return [draw_mix(config, seed=seed, step=step) for step in range(count)]


@pytest.mark.parametrize("config", [MIXUP, CUTMIX])
@pytest.mark.parametrize("step", range(20))
def test_pixels_have_the_share_that_the_weight_says(config, step):
    images, labels = batch()
    mixed_images, mixed = mix_batch(config, images, labels, seed=3, step=step)
    assert mixed.partner_labels.tolist() == [1, 0, 3, 2, 5, 4, 7, 6]
    means = mixed_images.mean((1, 2, 3))
    own, partner = labels.double() + 1, mixed.partner_labels.double() + 1
    want = mixed.weight * own + (1 - mixed.weight) * partner
    torch.testing.assert_close(means, want, rtol=0, atol=1e-12)
    assert torch.equal(images, batch()[0]), "the given images are changed"


def test_cutmix_takes_one_box_of_the_partner_and_mixup_blends_every_pixel():
    images, labels = batch()
    for step in range(30):
        cut, mixed = mix_batch(CUTMIX, images, labels, seed=0, step=step)
        place = cut[0, 0] == 2.0
        rows, columns = place.any(1), place.any(0)
        assert torch.equal(place, rows[:, None] & columns[None, :])
        assert torch.equal(cut[0, 0] == 1.0, ~place)
        assert (1 - place.double().mean()).item() == pytest.approx(mixed.weight)
        for image in (2, 4, 6):
            assert torch.equal(cut[image, 1] == image + 2.0, place)
        blended, mixed = mix_batch(MIXUP, images, labels, seed=0, step=step)
        torch.testing.assert_close(blended[0], torch.full_like(blended[0], 2 - mixed.weight))


@pytest.mark.parametrize("config", [MIXUP, CUTMIX, BOTH])
@pytest.mark.parametrize("parts", [2, 4])
def test_any_even_parts_of_a_global_batch_give_the_same(config, parts):
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(16, 3, 9, 9, generator=generator), torch.arange(16)
    for step in range(8):
        whole, of_whole = mix_batch(config, images, labels, seed=1, step=step)
        size = 16 // parts
        pieces = [
            mix_batch(config, x, y, seed=1, step=step)
            for x, y in zip(images.split(size), labels.split(size), strict=True)
        ]
        assert torch.equal(torch.cat([x for x, _ in pieces]), whole)
        assert torch.equal(
            torch.cat([m.partner_labels for _, m in pieces]), of_whole.partner_labels
        )
        assert {m.weight for _, m in pieces} == {of_whole.weight}


def test_draws_follow_seed_and_step_alone():
    torch.manual_seed(0)
    first = draws(BOTH, 50)
    torch.manual_seed(1)
    assert draws(BOTH, 50) == first
    assert draws(BOTH, 50, seed=1) != first
    assert len(set(first)) == 50


@pytest.mark.parametrize(("alpha", "kind"), [(0.2, "mixup"), (0.8, "mixup"), (1.0, "cutmix")])
def test_weights_are_of_the_beta_distribution(alpha, kind):
    """Mean 1/2 and variance 1 / (4 (2 alpha + 1)), to four standard errors."""
    other = {"mixup": "cutmix", "cutmix": "mixup"}[kind]
    weights = [d.weight for d in draws(MixConfig.model_validate({kind: alpha, other: 0.0}))]
    variance = 1 / (4 * (2 * alpha + 1))
    assert mean(weights) == pytest.approx(0.5, abs=4 * math.sqrt(variance / len(weights)))
    assert mean((w - 0.5) ** 2 for w in weights) == pytest.approx(variance, rel=0.06)


def test_probability_and_switch_are_shares_of_batches():
    config = MixConfig(switch=0.3, probability=0.6)
    found = draws(config)
    mixed = [d for d in found if d is not None]
    cut = [d for d in mixed if d.centre is not None]
    assert len(mixed) / len(found) == pytest.approx(0.6, abs=0.031)
    assert len(cut) / len(mixed) == pytest.approx(0.3, abs=0.038)
    assert all(d.centre is None for d in draws(MIXUP, 20))
    assert all(d.centre is not None for d in draws(CUTMIX, 20))


def test_a_batch_that_is_not_mixed_comes_back_as_it_is():
    config = MixConfig(probability=0.001)
    images, labels = batch()
    same, mixed = mix_batch(config, images, labels, seed=0, step=0)
    assert same is images
    assert mixed is None


@pytest.mark.parametrize(
    ("weight", "centre", "want"),
    [
        (0.75, (0.5, 0.5), (6, 18, 8, 22)),  # sides of 12 and 15, halves of 6 and 7
        (0.75, (0.0, 0.0), (0, 6, 0, 7)),  # cut off by the corner
        (0.75, (0.999, 0.999), (17, 24, 22, 30)),
        (0.0, (0.5, 0.5), (0, 24, 0, 30)),
        (1.0, (0.5, 0.5), (12, 12, 15, 15)),
    ],
)
def test_boxes_by_hand(weight, centre, want):
    assert cut_box(Draw(weight, centre), height=24, width=30) == want


def test_centres_are_uniform_over_the_pixels():
    rows = [int(8 * d.centre[0]) for d in draws(CUTMIX)]
    for row in range(8):
        assert rows.count(row) / len(rows) == pytest.approx(1 / 8, abs=0.021)


def test_memory_format_and_type_stay():
    images = torch.rand(4, 3, 8, 8, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    for config in (MIXUP, CUTMIX):
        mixed, _ = mix_batch(config, images, torch.arange(4), seed=0, step=0)
        assert mixed.dtype == torch.bfloat16
        assert mixed.is_contiguous(memory_format=torch.channels_last)


def test_odd_batches_are_refused():
    with pytest.raises(ValueError, match="a batch of 3 is odd"):
        mix_batch(BOTH, torch.rand(3, 1, 4, 4), torch.arange(3), seed=0, step=0)
