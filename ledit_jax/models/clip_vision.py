"""CLIP's image tower, and both towers with their projections: how well an image fits a text.

The weights come from transformers' files, see `ledit_jax.convert.clip`.
"""

from dataclasses import dataclass, field

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from ledit_jax.errors import ConfigError
from ledit_jax.models.clip_layers import Tower, TowerConfig, make_norm
from ledit_jax.models.clip_text import CLIPText, CLIPTextConfig, at_end
from ledit_jax.models.embed import patchify

_normal_002 = nnx.initializers.normal(0.02)


@dataclass(frozen=True)
class CLIPVisionConfig(TowerConfig):
    """Sizes of the image tower; the defaults are those of ViT-L/14 (303,179,776 parameters)."""

    width: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_width: int = 4096
    image_size: int = 224
    """Pixels per side."""
    patch_size: int = 14

    def __post_init__(self):
        super().__post_init__()
        if self.patch_size < 1 or self.image_size < self.patch_size or self.image_size % self.patch_size:
            raise ConfigError(f"patch_size={self.patch_size} must divide image_size={self.image_size}")


@dataclass(frozen=True)
class CLIPConfig:
    """Both towers; the defaults are ViT-L/14's."""

    text: CLIPTextConfig = field(default_factory=CLIPTextConfig)
    vision: CLIPVisionConfig = field(default_factory=CLIPVisionConfig)
    projection: int = 768
    """Numbers of what a text and an image are compared by."""


class CLIPVision(nnx.Module):
    """Patches behind a class token, norm, layers; the class token's state, normalised, is the image's."""

    def __init__(self, config: CLIPVisionConfig, rngs: nnx.Rngs):
        D, P = config.width, config.patch_size
        self.config = config
        self.class_embedding = nnx.Param(_normal_002(rngs.params(), (D,)))
        self.patch_embed = nnx.Linear(3 * P * P, D, use_bias=False, rngs=rngs)
        num_tokens = 1 + (config.image_size // P) ** 2
        self.position_embedding = nnx.Param(_normal_002(rngs.params(), (num_tokens, D)))
        self.norm_in = make_norm(config, rngs)
        self.tower = Tower(config, is_causal=False, rngs=rngs)
        self.norm_out = make_norm(config, rngs)

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B D"]:
        """The pooled output, of images of `config.image_size` that `evaluation.clip_images` prepared."""
        patches = patchify(images, self.config.patch_size)
        patches = self.patch_embed(patches.reshape(len(images), -1, patches.shape[-1]))  # B T D
        first = jnp.broadcast_to(self.class_embedding[...], (len(images), 1, patches.shape[-1]))
        x = jnp.concatenate([first, patches], axis=1) + self.position_embedding[...]
        return self.norm_out(self.tower(self.norm_in(x))[:, 0])


class CLIP(nnx.Module):
    """Both towers; texts and images become vectors of length 1 whose product is their cosine."""

    def __init__(self, config: CLIPConfig, rngs: nnx.Rngs):
        self.config = config
        self.text = CLIPText(config.text, rngs)
        self.vision = CLIPVision(config.vision, rngs)
        self.text_projection = nnx.Linear(config.text.width, config.projection, use_bias=False, rngs=rngs)
        self.image_projection = nnx.Linear(config.vision.width, config.projection, use_bias=False, rngs=rngs)
        self.logit_scale = nnx.Param(jnp.full((), 2.6592))  # of the training loss: kept to be written back

    def embed_texts(self, tokens: Int[Array, "B S"], end: int) -> Float[Array, "B P"]:
        """end: the id of the end token."""
        return _unit(self.text_projection(at_end(self.text(tokens), tokens, end)))

    def embed_images(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B P"]:
        return _unit(self.image_projection(self.vision(images)))


def _unit(x: Float[Array, "B P"]) -> Float[Array, "B P"]:
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)
