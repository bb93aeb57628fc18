"""The backbones by their name in recipes."""

from workloads.models.backbone import Backbone
from workloads.models.resnet18 import ResNet18
from workloads.models.small_resnet import SmallResNet

BACKBONES: dict[str, type[Backbone]] = {
    "small_resnet": SmallResNet,
    "resnet18": ResNet18,
}
