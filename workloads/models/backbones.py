"""The backbones by their name in recipes."""

from collections.abc import Callable

from workloads.models.alexnet import AlexNet
from workloads.models.backbone import Backbone
from workloads.models.densenet import DenseNet121, DenseNet161, DenseNet169, DenseNet201
from workloads.models.inception_v3 import InceptionV3
from workloads.models.mobilenet_v2 import MobileNetV2
from workloads.models.resnet import ResNet18, ResNet34, ResNet50, ResNet101, ResNet152
from workloads.models.se_resnet import SEResNet50
from workloads.models.shufflenet_v2 import (
    ShuffleNetV2x05,
    ShuffleNetV2x10,
    ShuffleNetV2x15,
    ShuffleNetV2x20,
)
from workloads.models.small_resnet import SmallResNet
from workloads.models.sot import sot_base, sot_small, sot_tiny
from workloads.models.swin import SwinTiny
from workloads.models.timm_net import TimmNet
from workloads.models.torchvision_net import TorchvisionNet
from workloads.models.vgg import VGG16, VGG16BN
from workloads.models.vit import deit_base, deit_small, deit_tiny

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "small_resnet": SmallResNet,
    "resnet18": ResNet18,
    "resnet34": ResNet34,
    "resnet50": ResNet50,
    "resnet101": ResNet101,
    "resnet152": ResNet152,
    "se_resnet50": SEResNet50,
    "mobilenet_v2": MobileNetV2,
    "shufflenet_v2_x0_5": ShuffleNetV2x05,
    "shufflenet_v2_x1_0": ShuffleNetV2x10,
    "shufflenet_v2_x1_5": ShuffleNetV2x15,
    "shufflenet_v2_x2_0": ShuffleNetV2x20,
    "vgg16": VGG16,
    "vgg16_bn": VGG16BN,
    "alexnet": AlexNet,
    "densenet121": DenseNet121,
    "densenet161": DenseNet161,
    "densenet169": DenseNet169,
    "densenet201": DenseNet201,
    "inception_v3": InceptionV3,
    "deit_tiny": deit_tiny,
    "deit_small": deit_small,
    "deit_base": deit_base,
    "swin_tiny": SwinTiny,
    "sot_tiny": sot_tiny,
    "sot_small": sot_small,
    "sot_base": sot_base,
    "torchvision": TorchvisionNet,
    "timm": TimmNet,
}
