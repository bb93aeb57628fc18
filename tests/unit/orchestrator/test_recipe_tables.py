"""The shipped recipes are what the papers' tables and code say."""

import pytest

from orchestrator.jobs.recipes import recipe_files
from tests.architecture.recipe_docs import TARGET, plan, recipe_of, recipe_of_rows, render
from workloads.config.images import ColorJitterConfig, RandomResizedCropConfig
from workloads.config.rates import learning_rate
from workloads.config.train import TrainConfig
from workloads.config.zoo import load_zoo
from workloads.models.published import NOT_COVERED, PUBLISHED, read_published

RECIPES = list(recipe_files("train"))
STEPS = 100
"""Steps per epoch, where the number does not matter."""


def config_of(recipe: str) -> TrainConfig:
    return plan(recipe).config


def rate(recipe: str, epoch: int, step: int = 0) -> float:
    return learning_rate(config_of(recipe), STEPS, epoch * STEPS + step)


@pytest.mark.parametrize("row", read_published(), ids=lambda row: f"{row.model}-{row.pooling}")
def test_every_published_row_has_a_recipe_with_its_network_and_length(row) -> None:
    recipe = recipe_of(row)
    if (row.model, row.pooling) in NOT_COVERED:
        assert recipe is None
        return
    assert recipe is not None
    config = config_of(recipe)
    assert config.model == load_zoo()[PUBLISHED[row.model, row.pooling]].model
    lengths = {config.epochs, config.epochs - getattr(config.schedule, "cooldown_epochs", 0)}
    another_run = (row.model, row.pooling, row.lr_mode) in {
        ("ResNet-50", "GAP", ""),  # scored after 90 of 100 epochs
    }
    assert row.epochs is None or row.epochs in lengths or another_run


@pytest.mark.parametrize("recipe", sorted(set(recipe_of_rows().values())))
def test_the_number_a_recipe_expects_is_printed_in_the_table(recipe: str) -> None:
    published = plan(recipe).spec.published
    assert published is not None
    numbers = [
        (row.top1, row.top5)
        for row in read_published()
        if (row.model, row.pooling, row.lr_mode)
        == (published.model, published.pooling, published.lr_mode)
    ]
    assert (published.top1, published.top5) in numbers


def test_the_page_of_published_results_is_up_to_date() -> None:
    assert TARGET.read_text(encoding="utf-8") == render(), "run: make docs"


RESNETS = [f"imagenet_resnet{depth}_{p}" for depth in (18, 34, 50, 101) for p in ("gap", "isqrt")]


@pytest.mark.parametrize("network", RESNETS)
def test_rates_of_the_resnets(network: str) -> None:
    """Values of the CVPR 2020 paper's code, epochs counted from 0."""
    for epoch, lr in ((0, 0.1), (29, 0.1), (30, 0.01), (60, 1e-3), (89, 1e-3), (90, 1e-4)):
        assert rate(f"{network}_lrnorm", epoch, STEPS - 1) == pytest.approx(lr, rel=1e-9)
    fast = {0: 0.123310, 1: 0.1, 2: 0.080767, 5: 0.041459, 10: 0.012363, 20: 0.000672, 29: 2.0e-5}
    for epoch, lr in fast.items():
        assert rate(f"{network}_lrfast", epoch, 57) == pytest.approx(lr, rel=1e-2, abs=5e-7)
    adju = {0: 0.1041233, 1: 0.1, 10: 0.0666389, 25: 0.0260308, 40: 0.0041649, 49: 4.16e-5}
    for epoch, lr in adju.items():
        assert rate(f"{network}_lradju", epoch, 57) == pytest.approx(lr, rel=1e-3, abs=5e-8)


@pytest.mark.parametrize("pooling", ["gap", "isqrt"])
def test_rates_of_mobilenet_v2(pooling: str) -> None:
    name = f"imagenet_mobilenet_v2_{pooling}"
    assert rate(f"{name}_lrnorm", 100) == pytest.approx(0.045 * 0.98**100)
    assert rate(f"{name}_lrfast", 99, 99) == pytest.approx(0.06 * 0.92**99)
    adju = {0: 0.06, 25: 0.035, 50: 0.01, 51: 0.00982, 100: 0.001, 149: 2.98e-5}
    for epoch, lr in adju.items():
        assert rate(f"{name}_lradju", epoch, 99) == pytest.approx(lr, rel=1e-6)


@pytest.mark.parametrize(("mode", "epochs"), [("lrnorm", 240), ("lrfast", 60), ("lradju", 100)])
def test_rates_of_shufflenet_v2_fall_per_step_and_stay_above_zero(mode: str, epochs: int) -> None:
    name = f"imagenet_shufflenet_v2_isqrt_{mode}"
    total = epochs * STEPS
    assert rate(name, 0) == 0.5
    assert rate(name, 3, 7) == pytest.approx(0.5 * (1 - 307 / total))
    assert rate(name, epochs - 1, STEPS - 1) == pytest.approx(0.5 / total)


@pytest.mark.parametrize(
    ("prefix", "batch", "decay", "momentum"),
    [
        ("imagenet_resnet50_isqrt_lradju", 256, 1e-4, 0.9),
        ("imagenet_mobilenet_v2_isqrt_lrnorm", 96, 4e-5, 0.9),
        ("imagenet_mobilenet_v2_isqrt_lrfast", 96, 4e-5, 0.9),
        ("imagenet_mobilenet_v2_isqrt_lradju", 192, 4e-5, 0.9),
        ("imagenet_shufflenet_v2_isqrt_lradju", 1024, 4e-5, 0.9),
    ],
)
def test_settings_of_the_cvpr_2020_paper(prefix, batch, decay, momentum) -> None:
    config = config_of(prefix)
    assert config.global_batch_size == batch
    assert config.optim.weight_decay == decay
    assert config.optim.decay_norms_and_biases
    assert (config.optim.name, config.optim.momentum, config.optim.nesterov) == (  # type: ignore[union-attr]
        "sgd",
        momentum,
        False,
    )
    assert (config.label_smoothing, config.schedule.warmup_epochs) == (0.0, 0.0)
    assert (config.images.size, config.images.resize, config.augment.flip) == (224, 256, 0.5)
    assert config.augment.crop == RandomResizedCropConfig(name="random_resized_crop")
    jitter = ColorJitterConfig() if "shufflenet" in prefix else None
    assert config.augment.color_jitter == jitter


def test_rates_of_the_tpami_2023_code() -> None:
    """What it runs: 0.1 times 0.1 every 30 epochs; what its files ask for: in the other recipes."""
    name = "imagenet_resnet50_isqrt_seed"
    assert [rate(name, epoch) for epoch in (0, 30, 60, 90)] == pytest.approx(
        [0.1, 1e-2, 1e-3, 1e-4]
    )
    linear = "imagenet_resnet50_isqrt_seed_linear"
    assert rate(linear, 0) == pytest.approx(0.8 / 200)
    assert rate(linear, 2) == 0.8
    assert rate(linear, 51) == pytest.approx(0.4)
    poly = "cifar10_resnet50_isqrt_seed"
    assert rate(poly, 5) == pytest.approx(0.1)
    assert rate(poly, 47, 50) == pytest.approx(0.1 * 0.5**2)
    config = config_of(name)
    assert (config.label_smoothing, config.label_smoothing_over) == (0.1, "others")
    assert not config.optim.decay_norms_and_biases
    assert config_of("imagenet_resnet50_isqrt_seed_lars").optim.name == "lars"
    scales = [config_of(f"imagenet_resnet{n}_isqrt_seed").compute.loss_scale for n in (18, 34, 50)]
    assert scales == [1024, 256, 1024]


def test_rates_of_the_transformers() -> None:
    """timm's cosine per epoch: the warm-up hides its first five, the last ten are level."""
    name = "imagenet_sot_small_svpn"
    assert rate(name, 0, 99) == pytest.approx(1e-6)
    assert rate(name, 1) == pytest.approx(1e-6 + (1e-3 - 1e-6) / 5)
    assert rate(name, 150) == pytest.approx((1e-3 + 1e-5) / 2)
    assert rate(name, 300) == rate(name, 309) == pytest.approx(1e-5)
    config = config_of(name)
    assert config.mix is not None
    assert config.ema is not None
    assert config.augment.erasing is not None
    assert (config.mix.mixup, config.mix.cutmix, config.ema.decay) == (0.8, 1.0, 0.99996)
    assert (config.seed, config.global_batch_size, config.optim.weight_decay) == (42, 1024, 0.03)
    base = config_of("imagenet_sot_base_svpn")
    assert (base.optim.lr, base.optim.weight_decay, base.global_batch_size) == (5e-4, 0.065, 512)
    assert rate("imagenet_sot_base_svpn", 0) == pytest.approx(1e-6)
    assert rate("imagenet_sot_base_svpn", 309) == pytest.approx(1e-5)
    for name in ("sot_small_svpn", "deit_small_dropcov", "swin_tiny_gap", "swin_tiny_dropcov"):
        assert config_of(f"imagenet_{name}").model.backbone.drop_path == 0.1


def test_fine_grained_settings() -> None:
    config = config_of("cub_resnet50_isqrt")
    assert (config.optim.lr, config.optim.lr_factors.classifier) == (1.2e-3, 5)
    assert rate("cub_resnet50_isqrt", 99) == 1.2e-3
    assert (config.global_batch_size, config.epochs) == (10, 100)
    shapes = {
        "cub": (448, 448, "shorter_side"),
        "aircraft": (448, 512, "squash"),
        "cars": (448, 448, "squash"),
    }
    for data, shape in shapes.items():
        images = config_of(f"{data}_resnet50_isqrt").images
        assert (images.size, images.resize, images.resize_mode) == shape
    assert rate("cub_vgg16_bn_isqrt", 20) == pytest.approx(3e-4)
    stage1, stage2 = (config_of(f"cub_vgg16_bcnn_stage{stage}") for stage in (1, 2))
    assert stage1.freeze is not None
    assert stage1.freeze.parts == ("features",)
    assert stage2.freeze is None
    assert stage2.init is not None
    assert (stage1.global_batch_size, stage2.global_batch_size) == (40, 10)
    assert stage1.optim.lr_factors.classifier * stage1.optim.lr == pytest.approx(1.0)
    assert stage1.optim.no_decay_parts == ("classifier",)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_config_survives_its_way_to_the_cluster(recipe: str) -> None:
    config = config_of(recipe)
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config
