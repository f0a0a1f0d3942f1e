"""The Vision Transformer image tower (arXiv 2010.11929), of any width, depth and patch.

Its options cover the ViTs that people have: Google's (AugReg, arXiv 2106.10270), DeiT (2012.12877), DINO
(2104.14294), MAE-style means, CLIP's norm before the first block (2103.00020), SigLIP's attention pooling
(2303.15343), and the registers, LayerScale and SwiGLU of DINOv2 (2304.07193, 2309.16588).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lit_jax.models.layers import AttentionPool, Dtype, Encoder
from lit_jax.models.presets import CLIP, HALF, IMAGENET, Preprocessing, Preset


class ViT(nn.Module):
    """A picture to one vector.

    Attributes:
        patch: side of a patch, pixels.
        width: D, channels.
        depth: L, blocks.
        heads: attention heads.
        mlp_dim: hidden width of the MLPs; 0 for 4 times the width.
        pool: ``token`` reads the class token, ``gap`` the mean of the patches, ``map`` attention pooling. ``gap_norm``
            reads the mean of the patches before the last norm and norms it, beside a class token (timm's ``avg``).
        dtype: computation dtype.
        registers: tokens without a position that nobody reads; they stand behind the class token.
        pre_norm: a norm before the first block (CLIP).
        patch_bias: whether the patch embedding has a bias (CLIP: no).
        layer_scale: a learned factor for each channel after attention and MLP (DINOv2).
        activation: of the MLPs, a name of `layers.ACTIVATIONS` or ``swiglu``.
        norm_epsilon: of the layer norms.
        distilled: DeiT's second token, behind the class token and with a position; it is not read.
    """

    patch: int
    width: int
    depth: int
    heads: int
    mlp_dim: int = 0
    pool: str = "token"
    dtype: Dtype = jnp.float32
    registers: int = 0
    pre_norm: bool = False
    patch_bias: bool = True
    layer_scale: bool = False
    activation: str = "gelu_tanh"
    norm_epsilon: float = 1e-6
    distilled: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Embeds `[B, H, W, 3]` normalised pixels as `[B, D]`; H and W are multiples of the patch."""
        hidden = self.mlp_dim or 4 * self.width
        strides = (self.patch, self.patch)
        x = nn.Conv(
            self.width, strides, strides, padding="VALID", use_bias=self.patch_bias, dtype=self.dtype, name="embedding"
        )(images)
        x = self._with_tokens(x.reshape(x.shape[0], -1, self.width))
        if self.pre_norm:
            x = nn.LayerNorm(self.norm_epsilon, dtype=self.dtype, name="pre_norm")(x)
        x = Encoder(
            self.depth, self.heads, hidden, activation=self.activation, norm_epsilon=self.norm_epsilon,
            dtype=self.dtype, layer_scale=self.layer_scale, last_norm=self.pool != "gap_norm", name="encoder",
        )(x)  # fmt: skip
        if self.pool == "token":
            return x[:, 0]
        if self.pool == "gap_norm":
            x = x[:, 1 + self.distilled + self.registers :].mean(1)
            return nn.LayerNorm(self.norm_epsilon, dtype=self.dtype, name="pool_norm")(x)
        x = x[:, self.registers :]
        if self.pool == "gap":
            return x.mean(1)
        return AttentionPool(self.heads, hidden, self.norm_epsilon, self.dtype, self.activation, name="pool")(x)

    def _with_tokens(self, patches: jax.Array) -> jax.Array:
        """Patches `[B, N, D]` with class token, registers and positions."""
        batch, _, width = patches.shape
        front = []
        if self.pool in ("token", "gap_norm"):
            front.append(self.param("class_token", nn.initializers.zeros, (1, 1, width)))
        if self.distilled:
            front.append(self.param("distillation_token", nn.initializers.zeros, (1, 1, width)))

        def placed(tokens: jax.Array) -> jax.Array:
            return jnp.broadcast_to(tokens.astype(patches.dtype), (batch, *tokens.shape[1:]))

        x = jnp.concatenate([*map(placed, front), patches], 1)
        # With a class token its own position comes first, as in the published files.
        shape = (1, x.shape[1], width)
        x = x + self.param("position_embedding", nn.initializers.normal(0.02), shape).astype(x.dtype)
        if self.registers:
            extra = self.param("registers", nn.initializers.normal(0.02), (1, self.registers, width))
            x = jnp.concatenate([x[:, : len(front)], placed(extra), x[:, len(front) :]], 1)
        return x


# Width, depth, heads and hidden width (0: 4 times the width), by the letters of the papers.
SIZES = {
    "ti": (192, 12, 3, 0),
    "s": (384, 12, 6, 0),
    "b": (768, 12, 12, 0),
    "l": (1024, 24, 16, 0),
    "h": (1280, 32, 16, 0),
    "g": (1408, 40, 16, 6144),
    "bigg": (1664, 48, 16, 8192),
    "so400m": (1152, 27, 16, 4304),
}

_CLIP = {"pre_norm": True, "patch_bias": False, "norm_epsilon": 1e-5}
_DINOV2 = {"layer_scale": True, "activation": "gelu"}
_GIANT = {"width": 1536, "depth": 40, "heads": 24, "mlp_dim": 4096, "layer_scale": True, "activation": "swiglu"}
# Hugging Face's and timm's DINOv2 are read at 518 pixels or resized to 224, with the middle of 256.
_DINO_VIEW = IMAGENET.but(crop_fraction=224 / 256)


def _vit(
    size: str, patch: int, pixels: int, like: Preprocessing, weights: str, licence: str, **options: object
) -> Preset:
    width, depth, heads, mlp_dim = SIZES[size]
    shape = {"patch": patch, "width": width, "depth": depth, "heads": heads, "mlp_dim": mlp_dim}
    return Preset(ViT, {**shape, **options}, pixels, like, weights, licence)


_APACHE, _MIT = "Apache-2.0", "MIT"
_GOOGLE = HALF.but(resize="square", interpolation="bilinear")
_AUGREG = HALF.but(crop_fraction=0.9)
_SIGLIP = HALF.but(resize="square")
_DEIT = IMAGENET.but(crop_fraction=0.9)

PRESETS = {
    "vit_ti16": _vit("ti", 16, 224, _AUGREG, "timm/vit_tiny_patch16_224.augreg_in21k", _APACHE),
    "vit_s16": _vit("s", 16, 224, _AUGREG, "timm/vit_small_patch16_224.augreg_in21k", _APACHE),
    "vit_s32": _vit("s", 32, 224, _AUGREG, "timm/vit_small_patch32_224.augreg_in21k", _APACHE),
    "vit_b8": _vit("b", 8, 224, _AUGREG, "timm/vit_base_patch8_224.augreg_in21k", _APACHE),
    "vit_b16": _vit("b", 16, 224, _AUGREG, "timm/vit_base_patch16_224.augreg_in21k", _APACHE),
    "vit_b32": _vit("b", 32, 224, _AUGREG, "timm/vit_base_patch32_224.augreg_in21k", _APACHE),
    "vit_l16": _vit("l", 16, 224, _AUGREG, "timm/vit_large_patch16_224.augreg_in21k", _APACHE),
    "vit_l16_384": _vit(
        "l", 16, 384, HALF.but(crop_fraction=1.0), "timm/vit_large_patch16_384.augreg_in21k_ft_in1k", _APACHE
    ),
    "vit_l32": _vit("l", 32, 224, _GOOGLE, "google/vit-large-patch32-224-in21k", _APACHE),
    "vit_h14": _vit("h", 14, 224, _GOOGLE, "google/vit-huge-patch14-224-in21k", _APACHE),
    "vit_g14": _vit("g", 14, 224, _GOOGLE, "none public; the size of arXiv 2106.04560", ""),
    "deit_s16": _vit("s", 16, 224, _DEIT, "timm/deit_small_patch16_224.fb_in1k", _APACHE, activation="gelu"),
    "deit_b16": _vit("b", 16, 224, _DEIT, "timm/deit_base_patch16_224.fb_in1k", _APACHE, activation="gelu"),
    "deit_b16_distilled": _vit(
        "b", 16, 224, _DEIT, "timm/deit_base_distilled_patch16_224.fb_in1k", _APACHE, activation="gelu", distilled=True
    ),
    "dino_s16": _vit("s", 16, 224, _DEIT, "timm/vit_small_patch16_224.dino", _APACHE, activation="gelu"),
    "dino_b16": _vit("b", 16, 224, _DEIT, "timm/vit_base_patch16_224.dino", _APACHE, activation="gelu"),
    "dinov2_s14": _vit("s", 14, 224, _DINO_VIEW, "facebook/dinov2-small", _APACHE, **_DINOV2),
    "dinov2_b14": _vit("b", 14, 224, _DINO_VIEW, "facebook/dinov2-base", _APACHE, **_DINOV2),
    "dinov2_l14": _vit("l", 14, 224, _DINO_VIEW, "facebook/dinov2-large", _APACHE, **_DINOV2),
    "dinov2_s14_reg4": _vit(
        "s", 14, 224, _DINO_VIEW, "facebook/dinov2-with-registers-small", _APACHE, registers=4, **_DINOV2
    ),
    "dinov2_b14_reg4": _vit(
        "b", 14, 224, _DINO_VIEW, "facebook/dinov2-with-registers-base", _APACHE, registers=4, **_DINOV2
    ),
    "dinov2_l14_reg4": _vit(
        "l", 14, 224, _DINO_VIEW, "facebook/dinov2-with-registers-large", _APACHE, registers=4, **_DINOV2
    ),
    "dinov2_g14": _vit("g", 14, 224, _DINO_VIEW, "facebook/dinov2-giant", _APACHE, **_GIANT),
    "dinov2_g14_reg4": _vit(
        "g", 14, 224, _DINO_VIEW, "facebook/dinov2-with-registers-giant", _APACHE, registers=4, **_GIANT
    ),
    "clip_b32": _vit("b", 32, 224, CLIP, "openai/clip-vit-base-patch32", _MIT, activation="gelu_quick", **_CLIP),
    "clip_b16": _vit("b", 16, 224, CLIP, "openai/clip-vit-base-patch16", _MIT, activation="gelu_quick", **_CLIP),
    "clip_l14": _vit("l", 14, 224, CLIP, "openai/clip-vit-large-patch14", _MIT, activation="gelu_quick", **_CLIP),
    "clip_l14_336": _vit(
        "l", 14, 336, CLIP, "openai/clip-vit-large-patch14-336", _MIT, activation="gelu_quick", **_CLIP
    ),
    "openclip_b32": _vit("b", 32, 224, CLIP, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", _MIT, activation="gelu", **_CLIP),
    "openclip_b16": _vit("b", 16, 224, CLIP, "laion/CLIP-ViT-B-16-laion2B-s34B-b88K", _MIT, activation="gelu", **_CLIP),
    "openclip_l14": _vit("l", 14, 224, HALF, "laion/CLIP-ViT-L-14-laion2B-s32B-b82K", _MIT, activation="gelu", **_CLIP),
    "openclip_l14_336": _vit(
        "l",
        14,
        336,
        HALF.but(resize="square"),
        "timm/vit_large_patch14_clip_336.laion2b_ft_in12k_in1k",
        _APACHE,
        activation="gelu",
        **_CLIP,
    ),
    "openclip_h14": _vit("h", 14, 224, CLIP, "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", _MIT, activation="gelu", **_CLIP),
    "openclip_g14": _vit("g", 14, 224, CLIP, "laion/CLIP-ViT-g-14-laion2B-s34B-b88K", _MIT, activation="gelu", **_CLIP),
    "openclip_bigg14": _vit(
        "bigg", 14, 224, CLIP, "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", _MIT, activation="gelu", **_CLIP
    ),
    "siglip_b16": _vit("b", 16, 224, _SIGLIP, "google/siglip-base-patch16-224", _APACHE, pool="map"),
    "siglip_l16": _vit("l", 16, 256, _SIGLIP, "google/siglip-large-patch16-256", _APACHE, pool="map"),
    "siglip_so400m_14": _vit("so400m", 14, 384, _SIGLIP, "google/siglip-so400m-patch14-384", _APACHE, pool="map"),
}
