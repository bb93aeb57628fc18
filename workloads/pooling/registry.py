"""The poolings by their name in recipes."""

from workloads.pooling.average import AveragePooling
from workloads.pooling.base import GlobalPooling
from workloads.pooling.bilinear import BilinearPooling
from workloads.pooling.compact_bilinear import CompactBilinearPooling
from workloads.pooling.covariance import CovariancePooling
from workloads.pooling.cross_covariance import CrossCovariancePooling
from workloads.pooling.dropcov import DropCovPooling
from workloads.pooling.epn import EpnPooling
from workloads.pooling.isqrt import IsqrtPooling
from workloads.pooling.layer_norm import LayerNormPooling
from workloads.pooling.log_euclidean import LogEuclideanPooling
from workloads.pooling.mpn_eig import MpnEigPooling
from workloads.pooling.scale_norm import ScaleNormPooling
from workloads.pooling.svpn import SvpnPooling

POOLINGS: dict[str, type[GlobalPooling]] = {
    "gap": AveragePooling,
    "cov": CovariancePooling,
    "isqrt": IsqrtPooling,
    "mpn_eig": MpnEigPooling,
    "log_euclidean": LogEuclideanPooling,
    "epn": EpnPooling,
    "svpn": SvpnPooling,
    "layer_norm": LayerNormPooling,
    "scale_norm": ScaleNormPooling,
    "dropcov": DropCovPooling,
    "bcnn": BilinearPooling,
    "cbp": CompactBilinearPooling,
    "cross_cov": CrossCovariancePooling,
}
