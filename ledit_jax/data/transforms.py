"""From an image of any size to an array of one size: channels, crop, mirror, value range."""

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

_MOST_PIXELS = 2**28
"""Of an image on its way through a crop."""


def to_image(image: UInt8[np.ndarray, "H W C"]) -> Image.Image:
    """PIL image of a uint8 array with one (grey) or three (RGB) channels."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def to_array(image: Image.Image, channels: int) -> UInt8[np.ndarray, "H W C"]:
    """Array of a PIL image of any mode, as RGB for three channels and as grey (luma) for one."""
    array = np.asarray(to_mode(image, channels))
    return array.reshape(*array.shape[:2], channels)


def to_mode(image: Image.Image, channels: int) -> Image.Image:
    """The image as RGB for three channels and as grey (luma) for one; itself where it is that already.

    Of 16 bits the upper eight are kept, as browsers do. Raises ValueError for floating-point and 32-bit images, whose
    range no file says.
    """
    mode = "RGB" if channels == 3 else "L"
    if image.mode.startswith("I;16"):  # Pillow itself would make white of all above 255
        image = Image.fromarray((np.asarray(image, np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its values are of mode {image.mode}, of no known range: save it with 8 or 16 bits")
    return image if image.mode == mode else image.convert(mode)


def center_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    """The centre of the image at exactly (height, width) pixels, as large a part as has that aspect.

    For height == width this is the crop of ADM and DiT (`center_crop_arr` in openai/guided-diffusion): halve with
    a box filter while the short side is at least twice the target, resize with a bicubic filter until the short
    side is the target, cut out the centre, rounding its corner down. For other aspects the same with "both sides"
    for "the short side": halve while both sides allow it, then scale so that the image just covers the target.
    Raises ValueError for an image so long that scaling it takes gigabytes.
    """
    image = _cover(image, height, width)
    return _cut(image, (image.width - width) // 2, (image.height - height) // 2, height, width)


def random_crop(image: Image.Image, height: int, width: int, min_share: float, rng: np.random.Generator) -> Image.Image:
    """A part of the image at exactly (height, width) pixels, its scale and its place drawn at random.

    The image is scaled as by `center_crop`, but to cover (height, width) times a number between 1 and 1 / min_share, so
    that the part has 1 to min_share of the largest one's sides. For height == width this is `random_crop_arr` in
    openai/guided-diffusion with min_crop_frac=min_share and max_crop_frac=1, but for rounding. Raises ValueError as
    `center_crop` does.
    """
    factor = rng.uniform(1, 1 / min_share)
    image = _cover(image, round(height * factor), round(width * factor))
    left, top = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
    return _cut(image, int(left), int(top), height, width)


def _cover(image: Image.Image, height: int, width: int) -> Image.Image:
    """The image scaled so that it just covers (height, width)."""
    while image.width >= 2 * width and image.height >= 2 * height:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = max(width / image.width, height / image.height)
    size = (round(image.width * scale), round(image.height * scale))
    if size[0] * size[1] > _MOST_PIXELS:
        raise ValueError(f"{image.width}x{image.height} (width x height) is too long to be cut to {width}x{height}")
    return image.resize(size, Image.Resampling.BICUBIC)


def _cut(image: Image.Image, left: int, top: int, height: int, width: int) -> Image.Image:
    return image.crop((left, top, left + width, top + height))


def random_flip(image: UInt8[np.ndarray, "H W C"], rng: np.random.Generator) -> UInt8[np.ndarray, "H W C"]:
    """The image, mirrored left to right with probability one half."""
    return image[:, ::-1] if rng.integers(2) else image


def to_float(
    image: UInt8[np.ndarray, "*shape"], out: Float32[np.ndarray, "*shape"] | None = None
) -> Float32[np.ndarray, "*shape"]:
    """Bytes 0..255 to float32 in [-1, 1]: x / 127.5 - 1, written to `out` if given."""
    out = np.divide(image, np.float32(127.5), out=out, dtype=np.float32)
    return np.subtract(out, np.float32(1), out=out)
