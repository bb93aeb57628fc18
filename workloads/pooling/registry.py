"""The poolings by their name in recipes."""

from workloads.pooling.average import AveragePooling
from workloads.pooling.base import GlobalPooling
from workloads.pooling.isqrt import IsqrtPooling

POOLINGS: dict[str, type[GlobalPooling]] = {
    "gap": AveragePooling,
    "isqrt": IsqrtPooling,
}
