"""Sizes of the deep compression autoencoder."""

from collections.abc import Sequence
from dataclasses import dataclass

from ledit_jax.errors import ConfigError


@dataclass(frozen=True)
class DCAEConfig:
    """Sizes of DC-AE; the defaults are those of f32c32 as Sana takes it (312,250,275 parameters)."""

    image_channels: int = 3
    latent_channels: int = 32
    block_out_channels: Sequence[int] = (128, 256, 512, 512, 1024, 1024)
    """A tuple: channels of each level, full resolution first; every level but the last halves the sides."""
    encoder_layers: Sequence[int] = (2, 2, 2, 3, 3, 3)
    """Blocks of each level, and `decoder_layers` likewise."""
    decoder_layers: Sequence[int] = (3, 3, 3, 3, 3, 3)
    attention_levels: int = 3
    """How many of the lowest resolutions have attention; the others have residual blocks."""
    head_dim: int = 32
    scales: Sequence[int] = (5,)
    """Sizes of the convolutions whose queries, keys and values are attended to beside the cells' own; all are odd."""
    folds: bool = False
    """Between levels pixels are folded into channels and back; else a stride, and nearest neighbours, change sides."""

    def __post_init__(self):
        for name in ("block_out_channels", "encoder_layers", "decoder_layers", "scales"):
            values = tuple(getattr(self, name))  # JSON gives lists
            object.__setattr__(self, name, values)
            if min(values, default=1) < 1:
                raise ConfigError(f"{name}={values} must be greater than 0, each of them")
        widths, count = self.block_out_channels, len(self.block_out_channels)
        for name in ("encoder_layers", "decoder_layers"):
            if len(getattr(self, name)) != count or not count:
                raise ConfigError(f"{name}={getattr(self, name)} needs a number for each of {widths}, the widths")
        for name in ("image_channels", "latent_channels", "head_dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be greater than 0")
        if not 0 <= self.attention_levels <= count:
            raise ConfigError(f"attention_levels={self.attention_levels} is not between 0 and {count}")
        if not all(scale % 2 for scale in self.scales):
            raise ConfigError(f"scales={self.scales} must be odd, each of them")
        self._check_widths(widths)

    def _check_widths(self, widths: tuple[int, ...]) -> None:
        """Shortcuts without parameters average channels or repeat them."""
        if widths[-1] % self.latent_channels:
            raise ConfigError(f"latent_channels={self.latent_channels} does not divide {widths[-1]}, the last width")
        for wide, narrow in zip(widths[1:], widths, strict=False):
            if 4 * narrow % wide or (self.folds and wide % 4):
                raise ConfigError(f"block_out_channels={widths}: {wide} does not divide 4 x {narrow} without remainder")
        for width in widths[len(widths) - self.attention_levels :]:
            if width % self.head_dim:
                raise ConfigError(f"head_dim={self.head_dim} does not divide {width} of block_out_channels={widths}")

    @property
    def downsample(self) -> int:
        """Pixels per side of one latent cell."""
        return 2 ** (len(self.block_out_channels) - 1)

    @property
    def levels_in_slices(self) -> int:
        """How many levels of the decoder can be run in slices, see models/vae_slices.py."""
        return 0
