"""The Inception network of 2015 that FID is defined by, with the quirks of its TensorFlow graph.

It differs from Inception v3 as others have it: bilinear resizing without half-pixel centres, average pooling that
leaves the padding out, a max pool in the last block, and 1,008 outputs. Batch normalisation is folded into the
convolutions. Blocks and branches carry the names of the PyTorch port (torchvision's).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

SIDE = 299
"""Pixels per side that every image is resized to, whatever its size and aspect."""
NUM_FEATURES = 2048
SPATIAL_CHANNELS = 7
"""Channels of mixed_6/conv that sFID takes, at 17 x 17 places each."""
NUM_SPATIAL = 17 * 17 * SPATIAL_CHANNELS
NUM_CLASSES = 1008


class ConvReLU(nnx.Module):
    """Convolution, with batch normalisation folded in, and ReLU."""

    def __init__(self, cin: int, cout: int, kernel=(1, 1), stride: int = 1, padding="SAME", *, rngs: nnx.Rngs):
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        # Its weights are always read; random ones would be traced for a second first.
        zeros = nnx.initializers.zeros_init()
        self.conv = nnx.Conv(cin, cout, kernel, strides=stride, padding=padding, kernel_init=zeros, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        return jax.nn.relu(self.conv(x))


def average_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """Mean over 3x3 neighbours that lie within the image."""
    return nnx.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def _largest_neighbour(x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    return nnx.max_pool(x, (3, 3), padding="SAME")


def _halve(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    return nnx.max_pool(x, (3, 3), strides=(2, 2), padding="VALID")


class BlockA(nnx.Module):
    """35 x 35: branches of 1x1, 5x5, two 3x3 and pooling."""

    def __init__(self, cin: int, pool: int, *, rngs: nnx.Rngs):
        self.branch1x1 = ConvReLU(cin, 64, rngs=rngs)
        self.branch5x5_1 = ConvReLU(cin, 48, rngs=rngs)
        self.branch5x5_2 = ConvReLU(48, 64, 5, rngs=rngs)
        self.branch3x3dbl_1 = ConvReLU(cin, 64, rngs=rngs)
        self.branch3x3dbl_2 = ConvReLU(64, 96, 3, rngs=rngs)
        self.branch3x3dbl_3 = ConvReLU(96, 96, 3, rngs=rngs)
        self.branch_pool = ConvReLU(cin, pool, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W c"]:
        wide = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return jnp.concatenate([self.branch1x1(x), wide, double, self.branch_pool(average_pool(x))], axis=-1)


class BlockB(nnx.Module):
    """35 x 35 to 17 x 17."""

    def __init__(self, cin: int, *, rngs: nnx.Rngs):
        self.branch3x3 = ConvReLU(cin, 384, 3, 2, "VALID", rngs=rngs)
        self.branch3x3dbl_1 = ConvReLU(cin, 64, rngs=rngs)
        self.branch3x3dbl_2 = ConvReLU(64, 96, 3, rngs=rngs)
        self.branch3x3dbl_3 = ConvReLU(96, 96, 3, 2, "VALID", rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return jnp.concatenate([self.branch3x3(x), double, _halve(x)], axis=-1)


class BlockC(nnx.Module):
    """17 x 17: branches of 1x1, 7x7 as 1x7 and 7x1, the same twice, and pooling."""

    def __init__(self, mid: int, *, rngs: nnx.Rngs):
        self.branch1x1 = ConvReLU(768, 192, rngs=rngs)
        self.branch7x7_1 = ConvReLU(768, mid, rngs=rngs)
        self.branch7x7_2 = ConvReLU(mid, mid, (1, 7), rngs=rngs)
        self.branch7x7_3 = ConvReLU(mid, 192, (7, 1), rngs=rngs)
        self.branch7x7dbl_1 = ConvReLU(768, mid, rngs=rngs)
        self.branch7x7dbl_2 = ConvReLU(mid, mid, (7, 1), rngs=rngs)
        self.branch7x7dbl_3 = ConvReLU(mid, mid, (1, 7), rngs=rngs)
        self.branch7x7dbl_4 = ConvReLU(mid, mid, (7, 1), rngs=rngs)
        self.branch7x7dbl_5 = ConvReLU(mid, 192, (1, 7), rngs=rngs)
        self.branch_pool = ConvReLU(768, 192, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> tuple[Float[Array, "B H W C"], Float[Array, "B H W c"]]:
        """The block's output, and that of its 1x1 branch."""
        point = self.branch1x1(x)
        wide = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return jnp.concatenate([point, wide, double, self.branch_pool(average_pool(x))], axis=-1), point


class BlockD(nnx.Module):
    """17 x 17 to 8 x 8."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.branch3x3_1 = ConvReLU(768, 192, rngs=rngs)
        self.branch3x3_2 = ConvReLU(192, 320, 3, 2, "VALID", rngs=rngs)
        self.branch7x7x3_1 = ConvReLU(768, 192, rngs=rngs)
        self.branch7x7x3_2 = ConvReLU(192, 192, (1, 7), rngs=rngs)
        self.branch7x7x3_3 = ConvReLU(192, 192, (7, 1), rngs=rngs)
        self.branch7x7x3_4 = ConvReLU(192, 192, 3, 2, "VALID", rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        wide = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return jnp.concatenate([self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(wide), _halve(x)], axis=-1)


class BlockE(nnx.Module):
    """8 x 8: branches that end in 1x3 beside 3x1; `pool` is the average in the first, the max in the last."""

    def __init__(self, cin: int, pool, *, rngs: nnx.Rngs):
        self.pool = pool
        self.branch1x1 = ConvReLU(cin, 320, rngs=rngs)
        self.branch3x3_1 = ConvReLU(cin, 384, rngs=rngs)
        self.branch3x3_2a = ConvReLU(384, 384, (1, 3), rngs=rngs)
        self.branch3x3_2b = ConvReLU(384, 384, (3, 1), rngs=rngs)
        self.branch3x3dbl_1 = ConvReLU(cin, 448, rngs=rngs)
        self.branch3x3dbl_2 = ConvReLU(448, 384, 3, rngs=rngs)
        self.branch3x3dbl_3a = ConvReLU(384, 384, (1, 3), rngs=rngs)
        self.branch3x3dbl_3b = ConvReLU(384, 384, (3, 1), rngs=rngs)
        self.branch_pool = ConvReLU(cin, 192, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W c"]:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        split = [self.branch3x3_2a(single), self.branch3x3_2b(single)]
        split += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return jnp.concatenate([self.branch1x1(x), *split, self.branch_pool(self.pool(x))], axis=-1)


class Inception(nnx.Module):
    """Images in, features for FID and sFID out; `fc` makes the outputs of the Inception Score, without a bias."""

    def __init__(self, rngs: nnx.Rngs):
        self.Conv2d_1a_3x3 = ConvReLU(3, 32, 3, 2, "VALID", rngs=rngs)
        self.Conv2d_2a_3x3 = ConvReLU(32, 32, 3, 1, "VALID", rngs=rngs)
        self.Conv2d_2b_3x3 = ConvReLU(32, 64, 3, rngs=rngs)
        self.Conv2d_3b_1x1 = ConvReLU(64, 80, rngs=rngs)
        self.Conv2d_4a_3x3 = ConvReLU(80, 192, 3, 1, "VALID", rngs=rngs)
        self.Mixed_5b = BlockA(192, 32, rngs=rngs)
        self.Mixed_5c = BlockA(256, 64, rngs=rngs)
        self.Mixed_5d = BlockA(288, 64, rngs=rngs)
        self.Mixed_6a = BlockB(288, rngs=rngs)
        self.Mixed_6b = BlockC(128, rngs=rngs)
        self.Mixed_6c = BlockC(160, rngs=rngs)
        self.Mixed_6d = BlockC(160, rngs=rngs)
        self.Mixed_6e = BlockC(192, rngs=rngs)
        self.Mixed_7a = BlockD(rngs=rngs)
        self.Mixed_7b = BlockE(1280, average_pool, rngs=rngs)
        self.Mixed_7c = BlockE(2048, _largest_neighbour, rngs=rngs)
        self.fc = nnx.Linear(NUM_FEATURES, NUM_CLASSES, use_bias=False, rngs=rngs)

    def __call__(self, images: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B 2048"], Float[Array, "B 2023"]]:
        """(pool_3, the first 7 channels of mixed_6/conv by row, column and channel) of images in 0 .. 255."""
        x = (resize(images) - 128.0) / 128.0
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_halve(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(_halve(x))))
        x, _ = self.Mixed_6b(self.Mixed_6a(x))
        x, _ = self.Mixed_6c(x)
        x, spatial = self.Mixed_6d(x)
        x, _ = self.Mixed_6e(x)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean(axis=(1, 2)), spatial[..., :SPATIAL_CHANNELS].reshape(len(x), NUM_SPATIAL)


def resize(images: Float[Array, "B H W C"]) -> Float[Array, "B 299 299 C"]:
    """TensorFlow 1's bilinear resize: output i lies at i * (input side / 299), without half-pixel centres, and
    nothing is averaged where an image shrinks. Of an image of that size it is the image."""
    if images.shape[1:3] == (SIDE, SIDE):
        return images
    rows, columns = (_interpolation(side) for side in images.shape[1:3])

    def along(x, axis, low, high, weight):
        bottom, top = jnp.take(x, low, axis=axis), jnp.take(x, high, axis=axis)
        weight = weight.reshape([-1 if i == axis else 1 for i in range(4)])
        return bottom + (top - bottom) * weight

    return along(along(images, 2, *columns), 1, *rows)


def _interpolation(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two neighbours of each place along a side, and the weight of the second."""
    places = np.arange(SIDE, dtype=np.float32) * np.float32(side / SIDE)
    low = np.floor(places).astype(np.int32)
    return low, np.minimum(low + 1, side - 1), places - low
