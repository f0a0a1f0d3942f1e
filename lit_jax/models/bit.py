"""The image tower of BiT (Big Transfer, arXiv 1912.11370): a ResNet v2 without batch statistics.

Pre-activation blocks (arXiv 1603.05027) with group norms (1803.08494) and standardised weights (1903.10520): the same
function of one photo in training and evaluation, by construction. Padding is the same on both sides.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lit_jax.models.layers import Dtype, convolution
from lit_jax.models.presets import HALF, Preset


class BiT(nn.Module):
    """A picture to one vector: the mean of the normed last stage over the grid.

    Attributes:
        depths: blocks of each stage; a stage is twice as wide as the one before it.
        width_factor: how many times as wide as a ResNet all of it is.
        dtype: computation dtype.
        as_convolutions: as in `resnet.ResNet`.
    """

    depths: tuple[int, ...]
    width_factor: int = 1
    dtype: Dtype = jnp.float32
    as_convolutions: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Embeds `[B, H, W, 3]` normalised pixels as `[B, D]`; D is 2048 times the width factor with four stages."""
        width = 64 * self.width_factor
        x = StandardisedConv(width, 7, 2, self.dtype, name="stem")(images)
        # Zeros and not -inf: the published weights were trained so, and values here may be negative.
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = nn.max_pool(x, (3, 3), (2, 2))
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                stride = 2 if stage and not block else 1
                name = f"stage{stage}_block{block}"
                x = BiTBlock(width << stage, stride, self.dtype, self.as_convolutions, name=name)(x)
        x = nn.relu(group_norm(self.dtype, "norm")(x))
        return x.astype(jnp.float32).mean((1, 2)).astype(self.dtype)


class BiTBlock(nn.Module):
    """One bottleneck block whose norms come before the convolutions.

    Attributes:
        width: of the 3x3 convolution; the block gives four times as many channels.
        stride: of the 3x3 convolution.
        dtype: computation dtype.
        as_convolutions: as in `resnet.ResNet`.
    """

    width: int
    stride: int = 1
    dtype: Dtype = jnp.float32
    as_convolutions: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, H / stride, W / stride, 4 * width]`, rounded up."""
        out = 4 * self.width
        like: dict[str, Any] = {"dtype": self.dtype, "as_convolutions": self.as_convolutions}
        y = nn.relu(group_norm(self.dtype, "norm1")(x))
        if self.stride > 1 or x.shape[-1] != out:
            x = StandardisedConv(out, 1, self.stride, **like, name="shortcut")(y)
        y = StandardisedConv(self.width, 1, 1, **like, name="conv1")(y)
        y = nn.relu(group_norm(self.dtype, "norm2")(y))
        y = StandardisedConv(self.width, 3, self.stride, **like, name="conv2")(y)
        y = nn.relu(group_norm(self.dtype, "norm3")(y))
        return x + StandardisedConv(out, 1, 1, **like, name="conv3")(y)


def group_norm(dtype: Dtype, name: str) -> nn.GroupNorm:
    """A norm over the grid and each of 32 groups of channels; its statistics are in float32."""
    # The fast variance, a difference of squares, loses digits where means are large.
    return nn.GroupNorm(32, epsilon=1e-5, use_fast_variance=False, dtype=dtype, name=name)


class StandardisedConv(nn.Module):
    """A convolution whose kernel has mean 0 and variance 1 for each channel that it gives.

    Attributes:
        width: D, channels that it gives.
        side: of the kernel.
        stride: of the convolution.
        dtype: computation dtype; the kernel is standardised in float32.
        epsilon: added to the variance.
        as_convolutions: as in `resnet.ResNet`.
    """

    width: int
    side: int
    stride: int = 1
    dtype: Dtype = jnp.float32
    epsilon: float = 1e-8
    as_convolutions: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, H / stride, W / stride, D]`, rounded up."""
        shape = (self.side, self.side, x.shape[-1], self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        mean = kernel.mean((0, 1, 2), keepdims=True)
        var = jnp.square(kernel - mean).mean((0, 1, 2), keepdims=True)
        kernel = (kernel - mean) * jax.lax.rsqrt(var + self.epsilon)
        half = self.side // 2
        convolved = jax.lax.conv_general_dilated if self.as_convolutions else convolution
        return convolved(
            x.astype(self.dtype), kernel.astype(self.dtype), (self.stride, self.stride), ((half, half), (half, half)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip


def _bit(depths: tuple[int, ...], factor: int, weights: str) -> Preset:
    view = HALF.but(crop_fraction=0.875, interpolation="bilinear")
    return Preset(BiT, {"depths": depths, "width_factor": factor}, 224, view, weights, "Apache-2.0")


PRESETS = {
    "bit_r50x1": _bit((3, 4, 6, 3), 1, "timm/resnetv2_50x1_bit.goog_in21k"),
    "bit_r101x1": _bit((3, 4, 23, 3), 1, "timm/resnetv2_101x1_bit.goog_in21k"),
    "bit_r50x3": _bit((3, 4, 6, 3), 3, "timm/resnetv2_50x3_bit.goog_in21k"),
    "bit_r101x3": _bit((3, 4, 23, 3), 3, "timm/resnetv2_101x3_bit.goog_in21k"),
    "bit_r152x4": _bit((3, 8, 36, 3), 4, "timm/resnetv2_152x4_bit.goog_in21k"),
}
