"""From a picture of any size to an array of one size: channels, centre crop, mirror, value range."""

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image


def to_picture(image: UInt8[np.ndarray, "H W C"]) -> Image.Image:
    """PIL picture of a uint8 array with one (grey) or three (RGB) channels."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def to_array(picture: Image.Image, channels: int) -> UInt8[np.ndarray, "H W C"]:
    """Array of a PIL picture of any mode, as RGB for three channels and as grey (luma) for one."""
    array = np.asarray(to_mode(picture, channels))
    return array.reshape(*array.shape[:2], channels)


def to_mode(picture: Image.Image, channels: int) -> Image.Image:
    """The picture as RGB for three channels and as grey (luma) for one; itself where it is that already."""
    mode = "RGB" if channels == 3 else "L"
    return picture if picture.mode == mode else picture.convert(mode)


def center_crop(picture: Image.Image, height: int, width: int) -> Image.Image:
    """The centre of the picture at exactly (height, width) pixels, as large a part as has that aspect.

    For height == width this is the crop of ADM and DiT (`center_crop_arr` in openai/guided-diffusion): halve with
    a box filter while the short side is at least twice the target, resize with a bicubic filter until the short
    side is the target, cut out the centre, rounding its corner down. For other aspects the same with "both sides"
    for "the short side": halve while both sides allow it, then scale so that the picture just covers the target.
    """
    while picture.width >= 2 * width and picture.height >= 2 * height:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    scale = max(width / picture.width, height / picture.height)
    size = (round(picture.width * scale), round(picture.height * scale))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def random_flip(image: UInt8[np.ndarray, "H W C"], rng: np.random.Generator) -> UInt8[np.ndarray, "H W C"]:
    """The image, mirrored left to right with probability one half."""
    return image[:, ::-1] if rng.integers(2) else image


def to_float(
    image: UInt8[np.ndarray, "*shape"], out: Float32[np.ndarray, "*shape"] | None = None
) -> Float32[np.ndarray, "*shape"]:
    """Bytes 0..255 to float32 in [-1, 1]: x / 127.5 - 1, written to `out` if given."""
    out = np.divide(image, np.float32(127.5), out=out, dtype=np.float32)
    return np.subtract(out, np.float32(1), out=out)
