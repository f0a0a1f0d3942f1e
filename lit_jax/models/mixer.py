"""The MLP-Mixer image tower (arXiv 2105.01601): MLPs over the patches in turn with MLPs over the channels."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lit_jax.models.layers import Dtype, Mlp
from lit_jax.models.presets import HALF, Preprocessing, Preset


class MixerBlock(nn.Module):
    """One block: the patches of each channel are mixed, then the channels of each patch."""

    token_hidden: int
    channel_hidden: int
    activation: str = "gelu_tanh"
    norm_epsilon: float = 1e-6
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, None]:
        """Maps `[B, N, D]` to `[B, N, D]`; the second result is what `nn.scan` stacks: nothing."""
        y = nn.LayerNorm(self.norm_epsilon, dtype=self.dtype, name="token_norm")(x)
        y = Mlp(self.token_hidden, self.activation, self.dtype, name="token_mlp")(y.swapaxes(1, 2))
        x = x + y.swapaxes(1, 2)
        y = nn.LayerNorm(self.norm_epsilon, dtype=self.dtype, name="channel_norm")(x)
        return x + Mlp(self.channel_hidden, self.activation, self.dtype, name="channel_mlp")(y), None


class Mixer(nn.Module):
    """A picture to one vector: the mean of the patches after the last norm.

    The MLPs over patches have one input for each of them, so that the parameters fit one size of picture only.

    Attributes:
        patch: side of a patch, pixels.
        width: D, channels.
        depth: L, blocks.
        token_hidden: hidden width of the MLPs over patches; 0 for half the width.
        channel_hidden: hidden width of the MLPs over channels; 0 for 4 times the width.
        dtype: computation dtype.
        activation: of the MLPs, a name of `layers.ACTIVATIONS`.
        norm_epsilon: of the layer norms.
    """

    patch: int
    width: int
    depth: int
    token_hidden: int = 0
    channel_hidden: int = 0
    dtype: Dtype = jnp.float32
    activation: str = "gelu_tanh"
    norm_epsilon: float = 1e-6

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Embeds `[B, H, W, 3]` normalised pixels as `[B, D]`; H and W are multiples of the patch."""
        strides = (self.patch, self.patch)
        x = nn.Conv(self.width, strides, strides, padding="VALID", dtype=self.dtype, name="embedding")(images)
        x = x.reshape(x.shape[0], -1, self.width)
        blocks = nn.scan(MixerBlock, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.depth)
        x, _ = blocks(
            self.token_hidden or self.width // 2, self.channel_hidden or 4 * self.width, self.activation,
            self.norm_epsilon, self.dtype, name="blocks",
        )(x)  # fmt: skip
        return nn.LayerNorm(self.norm_epsilon, dtype=self.dtype, name="norm")(x).mean(1)


# Width and depth, by the letters of the paper's table 1.
SIZES = {"s": (512, 8), "b": (768, 12), "l": (1024, 24)}


def _mixer(size: str, patch: int, like: Preprocessing, weights: str, licence: str = "Apache-2.0") -> Preset:
    width, depth = SIZES[size]
    return Preset(Mixer, {"patch": patch, "width": width, "depth": depth}, 224, like, weights, licence)


_GOOGLE = HALF.but(resize="square", interpolation="bilinear")
_TIMM = HALF.but(crop_fraction=0.875)

PRESETS = {
    "mixer_s32": _mixer("s", 32, _GOOGLE, "gs://mixer_models/gsam/Mixer-S_32.npz"),
    "mixer_s16": _mixer("s", 16, _GOOGLE, "gs://mixer_models/gsam/Mixer-S_16.npz"),
    "mixer_b32": _mixer("b", 32, _GOOGLE, "gs://mixer_models/gsam/Mixer-B_32.npz"),
    "mixer_b16": _mixer("b", 16, _TIMM, "timm/mixer_b16_224.goog_in21k"),
    "mixer_l32": _mixer("l", 32, _GOOGLE, "none public; the size of arXiv 2105.01601", ""),
    "mixer_l16": _mixer("l", 16, _TIMM, "timm/mixer_l16_224.goog_in21k"),
}
