"""The ResNet image tower (arXiv 1512.03385) in the form of torchvision, known as v1.5.

Where a stage halves the grid, its first block does so in the 3x3 convolution and not in the 1x1 before it. Padding is
PyTorch's, the same on both sides.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lit_jax.models.layers import Dtype, FrozenBatchNorm, convolution
from lit_jax.models.presets import IMAGENET, Preset


class ResNet(nn.Module):
    """A picture to one vector: the mean of the last stage over the grid.

    The batch norms always use the statistics in the weights: a locked tower gives a photo the same features in any
    batch, in training as in evaluation. They get no gradient, so that an unlocked tower does not move them either.

    Attributes:
        depths: blocks of each stage; a stage is twice as wide as the one before it.
        bottleneck: blocks of 1x1, 3x3 and 1x1 with four times the width at the end; otherwise of two 3x3.
        dtype: computation dtype.
        norm_epsilon: of the batch norms.
        as_convolutions: whether convolutions of one pixel are written as such, for other runtimes than XLA, and not as
            products of matrices.
    """

    depths: tuple[int, ...]
    bottleneck: bool = True
    dtype: Dtype = jnp.float32
    norm_epsilon: float = 1e-5
    as_convolutions: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Embeds `[B, H, W, 3]` normalised pixels as `[B, D]`: 2048 with bottlenecks and four stages, 512 without."""
        x = nn.Conv(64, (7, 7), (2, 2), padding=3, use_bias=False, dtype=self.dtype, name="stem")(images)
        x = nn.relu(FrozenBatchNorm(self.norm_epsilon, self.dtype, name="stem_norm")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))  # pads with -inf
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                stride = 2 if stage and not block else 1
                x = ResNetBlock(
                    64 << stage, stride, self.bottleneck, self.norm_epsilon, self.dtype, self.as_convolutions,
                    name=f"stage{stage}_block{block}",
                )(x)  # fmt: skip
        return x.astype(jnp.float32).mean((1, 2)).astype(self.dtype)


class ResNetBlock(nn.Module):
    """One residual block.

    Attributes:
        width: of its 3x3 convolutions.
        stride: of the first of them.
        bottleneck: as in `ResNet`.
        norm_epsilon: of the batch norms.
        dtype: computation dtype.
        as_convolutions: as in `ResNet`.
    """

    width: int
    stride: int = 1
    bottleneck: bool = True
    norm_epsilon: float = 1e-5
    dtype: Dtype = jnp.float32
    as_convolutions: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, H / stride, W / stride, D]`, rounded up."""
        out = 4 * self.width if self.bottleneck else self.width
        # Width, side of the kernel and stride of each convolution.
        convs = [(self.width, 3, self.stride), (out, 3, 1)]
        if self.bottleneck:
            convs = [(self.width, 1, 1), (self.width, 3, self.stride), (out, 1, 1)]
        y = x
        for i, conv in enumerate(convs, 1):
            y = self._normed_conv(y, *conv, f"conv{i}", f"norm{i}")
            y = nn.relu(y) if i < len(convs) else y
        if self.stride > 1 or x.shape[-1] != out:
            x = self._normed_conv(x, out, 1, self.stride, "shortcut", "shortcut_norm")
        return nn.relu(x + y)

    def _normed_conv(self, x: jax.Array, width: int, side: int, stride: int, name: str, norm: str) -> jax.Array:
        x = nn.Conv(
            width, (side, side), (stride, stride), padding=side // 2, use_bias=False, dtype=self.dtype, name=name,
            conv_general_dilated=None if self.as_convolutions else convolution,
        )(x)  # fmt: skip
        return FrozenBatchNorm(self.norm_epsilon, self.dtype, name=norm)(x)


def _resnet(depths: tuple[int, ...], weights: str, *, bottleneck: bool = True) -> Preset:
    view = IMAGENET.but(crop_fraction=0.95)
    return Preset(ResNet, {"depths": depths, "bottleneck": bottleneck}, 224, view, weights, "Apache-2.0")


PRESETS = {
    "resnet18": _resnet((2, 2, 2, 2), "timm/resnet18.a1_in1k", bottleneck=False),
    "resnet34": _resnet((3, 4, 6, 3), "timm/resnet34.a1_in1k", bottleneck=False),
    "resnet50": _resnet((3, 4, 6, 3), "timm/resnet50.a1_in1k"),
    "resnet101": _resnet((3, 4, 23, 3), "timm/resnet101.a1_in1k"),
    "resnet152": _resnet((3, 8, 36, 3), "timm/resnet152.a1_in1k"),
}
