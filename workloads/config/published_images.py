"""How images are prepared for the published weights of ImageNet networks."""

from workloads.config.images import ImagesConfig
from workloads.config.model import ModelConfig

_BICUBIC = ("deit", "swin", "sot")


def published_images(model: ModelConfig, size: int) -> ImagesConfig:
    """Return what the published evaluation of a network does with an image.

    The shorter side to size * 256 / 224, a centre crop, and ImageNet's mean and deviation (the
    scripts of torchvision, fast-MPN-COV and DropCov); bicubic for transformers (DeiT, Swin). The
    SE-ResNet-50 of the TPAMI 2023 code takes 256 of 292 pixels and leaves the deviation alone.

    Args:
        model: The network.
        size: Side of the images that it takes, in pixels.
    """
    backbone = model.backbone
    if backbone.name == "se_resnet50" and getattr(backbone, "variant", None) == "seed":
        return ImagesConfig(
            size=256,
            resize=292,
            mean=(123.68 / 255, 116.78 / 255, 103.94 / 255),
            std=(1 / 255, 1 / 255, 1 / 255),
        )
    return ImagesConfig(
        size=size,
        resize=round(size * 256 / 224),
        interpolation="bicubic" if backbone.name.startswith(_BICUBIC) else "bilinear",
    )
