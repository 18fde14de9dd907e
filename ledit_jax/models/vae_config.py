"""Sizes and types of the autoencoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ledit_jax.errors import ConfigError


@dataclass(frozen=True)
class VAEConfig:
    """Sizes of the autoencoder; the defaults are Stable Diffusion's (83,653,863 parameters)."""

    image_channels: int = 3
    latent_channels: int = 4
    block_out_channels: Sequence[int] = (128, 256, 512, 512)
    """A tuple: channels of each level, full resolution first; every level but the last halves the sides."""
    layers_per_block: int = 2
    """Residual blocks per level of the encoder; the decoder has one more."""
    norm_num_groups: int = 32
    quant_convs: bool = True
    """1x1 convolutions after the encoder and before the decoder; Stable Diffusion 3 has none."""
    level_attention: bool = False
    """Attention after each residual block of the lowest resolution, as LDM's autoencoders of 16x16 pixels a cell."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What convolutions and matrix products compute in; parameters, norms and softmax stay float32."""

    def __post_init__(self):
        object.__setattr__(self, "block_out_channels", tuple(self.block_out_channels))  # JSON gives lists
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise ConfigError(
                    f"norm_num_groups={self.norm_num_groups} does not divide {channels} of "
                    f"block_out_channels={self.block_out_channels}: use a common divisor of them"
                )

    @property
    def downsample(self) -> int:
        """Pixels per side of one latent cell."""
        return 2 ** (len(self.block_out_channels) - 1)

    @property
    def levels_in_slices(self) -> int:
        """How many levels of the decoder can be run in slices, see models/vae_slices.py: all but the first."""
        return len(self.block_out_channels) - 1
