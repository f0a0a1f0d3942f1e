"""Image towers for small devices, all of inverted residuals: EfficientNet-Lite and MobileNetV2.

MobileNetV2 is arXiv 1801.04381. EfficientNet-Lite is EfficientNet (1905.11946) with ReLU6, without
squeeze-and-excitation, and with one stem and head for all sizes.

TensorFlow and PyTorch pad strided convolutions differently, and add another epsilon to the variance. Weights are right
for one of the two, so there are presets of both: those of TensorFlow's weights begin with ``tf_``, as in timm.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lit_jax.models.layers import Dtype, FrozenBatchNorm, convolution
from lit_jax.models.presets import HALF, IMAGENET, Preprocessing, Preset

Stage = tuple[int, int, int, int, int]
Padding = tuple[tuple[int, int], tuple[int, int]]


class InvertedResNet(nn.Module):
    """A picture to one vector: the mean of the head over the grid.

    The batch norms always use the statistics in the weights, as in `resnet.ResNet`.

    Attributes:
        stages: of each its blocks, side of the kernels, stride, expansion and width.
        stem: width of the first convolution.
        head: D, width of the last one.
        dtype: computation dtype.
        norm_epsilon: of the batch norms.
        padding: ``same`` as TensorFlow pads, which depends on the size of the picture; ``equal`` as PyTorch does,
            as much on each side.
        as_convolutions: whether all convolutions are written as such, for other runtimes than XLA; otherwise those of
            each channel by itself are sums of shifted products, and those of one pixel products of matrices.
    """

    stages: tuple[Stage, ...]
    stem: int = 32
    head: int = 1280
    dtype: Dtype = jnp.float32
    norm_epsilon: float = 1e-5
    padding: str = "equal"
    as_convolutions: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Embeds `[B, H, W, 3]` normalised pixels as `[B, D]`."""
        like: dict[str, Any] = {
            "norm_epsilon": self.norm_epsilon, "padding": self.padding, "dtype": self.dtype,
            "as_convolutions": self.as_convolutions,
        }  # fmt: skip
        x = NormedConv(self.stem, 3, 2, **like, name="stem")(images)
        for s, (depth, side, stride, expansion, width) in enumerate(self.stages):
            for b in range(depth):
                x = InvertedResidual(
                    width, side, 1 if b else stride, expansion, **like, name=f"stage{s}_block{b}"
                )(x)  # fmt: skip
        x = NormedConv(self.head, **like, name="head")(x)
        return x.astype(jnp.float32).mean((1, 2)).astype(self.dtype)


class InvertedResidual(nn.Module):
    """Expand each position, filter each channel, contract.

    Attributes:
        width: channels that it gives.
        side: of the filters.
        stride: of the filters.
        expansion: how many times as wide the middle is as what comes in; 1 leaves the expansion out.
        norm_epsilon: of the batch norms.
        padding: as in `InvertedResNet`.
        dtype: computation dtype.
        as_convolutions: as in `InvertedResNet`.
    """

    width: int
    side: int
    stride: int
    expansion: int
    norm_epsilon: float = 1e-5
    padding: str = "equal"
    dtype: Dtype = jnp.float32
    as_convolutions: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, H / stride, W / stride, D]`, rounded up."""
        like: dict[str, Any] = {
            "norm_epsilon": self.norm_epsilon, "padding": self.padding, "dtype": self.dtype,
            "as_convolutions": self.as_convolutions,
        }  # fmt: skip
        middle = self.expansion * x.shape[-1]
        y = x
        if self.expansion > 1:
            y = NormedConv(middle, **like, name="expand")(y)
        y = NormedConv(middle, self.side, self.stride, depthwise=True, **like, name="filter")(y)
        y = NormedConv(self.width, active=False, **like, name="contract")(y)
        return x + y if self.stride == 1 and x.shape[-1] == self.width else y


class NormedConv(nn.Module):
    """A convolution, its batch norm and ReLU6.

    Attributes:
        width: channels that it gives.
        side: of the kernel.
        stride: of the convolution.
        depthwise: each channel by itself.
        active: whether ReLU6 comes last.
        norm_epsilon: of the batch norm.
        padding: as in `InvertedResNet`.
        dtype: computation dtype.
        as_convolutions: as in `InvertedResNet`.
    """

    width: int
    side: int = 1
    stride: int = 1
    depthwise: bool = False
    active: bool = True
    norm_epsilon: float = 1e-5
    padding: str = "equal"
    dtype: Dtype = jnp.float32
    as_convolutions: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, H / stride, W / stride, D]`, rounded up."""
        padding = _padding(self.padding, self.side, self.stride, x.shape)
        if self.depthwise:
            x = Depthwise(self.side, self.stride, padding, self.dtype, self.as_convolutions, name="conv")(x)
        else:
            x = nn.Conv(
                self.width, (self.side, self.side), (self.stride, self.stride), use_bias=False, dtype=self.dtype,
                padding=padding, conv_general_dilated=None if self.as_convolutions else convolution, name="conv",
            )(x)  # fmt: skip
        x = FrozenBatchNorm(self.norm_epsilon, self.dtype, name="norm")(x)
        return nn.relu6(x) if self.active else x


class Depthwise(nn.Module):
    """A convolution of each channel by itself, as a sum of shifted products.

    XLA's convolutions of one channel a group run on one core of a CPU, and many times slower.

    Attributes:
        side: of the kernel.
        stride: of the convolution.
        padding: rows above and below, and columns before and behind.
        dtype: computation dtype.
        as_convolutions: as in `InvertedResNet`.
    """

    side: int
    stride: int
    padding: Padding
    dtype: Dtype = jnp.float32
    as_convolutions: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, H / stride, W / stride, C]`, rounded as the padding says."""
        shape = (self.side, self.side, 1, x.shape[-1])
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        if self.as_convolutions:
            return jax.lax.conv_general_dilated(
                x.astype(self.dtype), kernel, (self.stride, self.stride), self.padding, feature_group_count=x.shape[-1],
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )  # fmt: skip
        x = jnp.pad(x.astype(self.dtype), ((0, 0), *self.padding, (0, 0)))
        height, width = ((n - self.side) // self.stride for n in x.shape[1:3])
        products = [
            x[:, i : i + height * self.stride + 1 : self.stride, j : j + width * self.stride + 1 : self.stride]
            * kernel[None, None, i, j]
            for i in range(self.side)
            for j in range(self.side)
        ]
        return functools.reduce(jnp.add, products)


def _padding(kind: str, side: int, stride: int, shape: tuple[int, ...]) -> Padding:
    """Rows and columns to add on each side of `[B, H, W, C]`.

    Raises:
        ValueError: a kind that is neither ``same`` nor ``equal``.
    """
    if kind == "equal":
        return ((side // 2, side // 2), (side // 2, side // 2))
    if kind != "same":
        raise ValueError(f"padding: found {kind!r}, expected same or equal")
    # TensorFlow's: as many positions as strides fit into the picture, the odd row or column behind.
    missing = [max((-(-n // stride) - 1) * stride + side - n, 0) for n in shape[1:3]]
    rows, columns = ((n // 2, n - n // 2) for n in missing)
    return (rows, columns)


# Blocks, side, stride, expansion and width of each stage at the first size.
_LITE: tuple[Stage, ...] = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
_MOBILE: tuple[Stage, ...] = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (3, 3, 2, 6, 32), (4, 3, 2, 6, 64), (3, 3, 1, 6, 96), (3, 3, 2, 6, 160),
    (1, 3, 1, 6, 320),
)  # fmt: skip


def _rounded(width: float) -> int:
    """A multiple of 8 that is near, and at least nine tenths."""
    near = max(8, int(width + 4) // 8 * 8)
    return near + 8 if near < 0.9 * width else near


def scaled(stages: tuple[Stage, ...], width: float, percent: int) -> tuple[Stage, ...]:
    """Stages `width` times as wide and `percent` hundredths as deep; the first and the last keep their depth."""
    ends = (0, len(stages) - 1)
    return tuple(
        (depth if i in ends else -(-depth * percent // 100), side, stride, expansion, _rounded(width * channels))
        for i, (depth, side, stride, expansion, channels) in enumerate(stages)
    )


_TF = {"norm_epsilon": 1e-3, "padding": "same"}
_VIEW = IMAGENET.but(crop_fraction=0.875)
_TF_VIEW = HALF.but(crop_fraction=0.875, interpolation="bilinear")


def _lite(width: float, percent: int, size: int, like: Preprocessing, weights: str, **options: object) -> Preset:
    return Preset(
        InvertedResNet, {"stages": scaled(_LITE, width, percent), **options}, size, like, weights, "Apache-2.0"
    )


def _tf_lite(number: int, width: float, percent: int, size: int, crop: float, filter_: str) -> Preset:
    view = HALF.but(crop_fraction=crop, interpolation=filter_)
    return _lite(width, percent, size, view, f"timm/tf_efficientnet_lite{number}.in1k", **_TF)


def _mobile(width: float, like: Preprocessing, weights: str, licence: str, **options: object) -> Preset:
    shape = {"stages": scaled(_MOBILE, width, 100), "stem": _rounded(32 * width), "head": _rounded(1280 * width)}
    return Preset(InvertedResNet, {**shape, **options}, 224, like, weights, licence)


PRESETS = {
    "efficientnet_lite0": _lite(1.0, 100, 224, _VIEW, "timm/efficientnet_lite0.ra_in1k"),
    "tf_efficientnet_lite0": _tf_lite(0, 1.0, 100, 224, 0.875, "bicubic"),
    "tf_efficientnet_lite1": _tf_lite(1, 1.0, 110, 240, 0.882, "bicubic"),
    "tf_efficientnet_lite2": _tf_lite(2, 1.1, 120, 260, 0.89, "bicubic"),
    "tf_efficientnet_lite3": _tf_lite(3, 1.2, 140, 300, 0.904, "bilinear"),
    "tf_efficientnet_lite4": _tf_lite(4, 1.4, 180, 380, 0.92, "bilinear"),
    "mobilenetv2_100": _mobile(1.0, _VIEW, "timm/mobilenetv2_100.ra_in1k", "Apache-2.0"),
    "mobilenetv2_140": _mobile(1.4, _VIEW, "timm/mobilenetv2_140.ra_in1k", "Apache-2.0"),
    "tf_mobilenetv2_100": _mobile(1.0, _TF_VIEW, "google/mobilenet_v2_1.0_224", "other", **_TF),
    "tf_mobilenetv2_140": _mobile(1.4, _TF_VIEW, "google/mobilenet_v2_1.4_224", "other", **_TF),
}
