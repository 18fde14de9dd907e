"""Sizes of images as commands and tables write them: height x width, in pixels."""

from fractions import Fraction

from ledit_jax.errors import ConfigError

Size = tuple[int, int]
"""Height and width in pixels."""


def parse_size(text: str) -> Size:
    """ "512x384" -> (512, 384). Raises ConfigError for another form."""
    height, _, width = text.partition("x")
    if len(text) > 20 or not (height.isdecimal() and width.isdecimal()):
        raise ConfigError(f"sizes: {text!r:.40} is no size: write height x width in pixels, as in 24x32")
    return int(height), int(width)


def size_name(size: Size) -> str:
    """(512, 384) -> "512x384"."""
    return f"{size[0]}x{size[1]}"


def relative_size(size: Size, trained_size: Size) -> str:
    """ "1.5x" where both sides grow by 1.5; the aspect, width to height as in "2:1", where they grow unequally."""
    if size[0] * trained_size[1] == size[1] * trained_size[0]:
        return f"{size[0] / trained_size[0]:.3g}x"
    aspect = Fraction(size[1], size[0])
    return f"{aspect.numerator}:{aspect.denominator}"
