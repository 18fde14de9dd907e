"""What a folder of latents is to become, and what became of it: the plan of `encode_latents` and its report."""

import dataclasses
import math

from ledit_jax.config import DataConfig
from ledit_jax.data.latent_metadata import LatentMetadata
from ledit_jax.data.latent_records import MOMENTS
from ledit_jax.files import Place
from ledit_jax.files.refusals import free_bytes

PLAN_FILE = "plan.json"
_ONE_PART = ("image_folder", "coco", "captioned_folder")
"""Sources that have no splits."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a folder of latents is to become; another plan than the one that started a folder is refused there."""

    metadata: LatentMetadata
    """`count` is the number of images, before any of them turns out to be unreadable."""
    shard_size: int

    @property
    def num_shards(self) -> int:
        """Files of the folder; all but the last have `shard_size` images."""
        return -(-self.metadata.count // self.shard_size)

    def ranges(self, shard: int, batch_size: int) -> list[tuple[int, int]]:
        """Batches of a file as (start, stop). None reaches into the next file, so that a batch holds the same
        images in whatever order, and after however many kills, files are written."""
        first, last = shard * self.shard_size, min((shard + 1) * self.shard_size, self.metadata.count)
        return [(start, min(start + batch_size, last)) for start in range(first, last, batch_size)]


@dataclasses.dataclass(frozen=True)
class Report:
    """What a call of `encode_latents` did, and what it found."""

    encoded: int
    """Images that this call encoded."""
    images_per_sec: float
    missing: int
    """Files that other processes have still to write."""
    metadata: LatentMetadata | None = None
    """Of the folder once it is finished."""
    bytes_per_image: float = 0.0

    def __str__(self) -> str:
        done = f"encoded {self.encoded:,} images at {self.images_per_sec:.1f} images/s"
        if not self.encoded:
            done = "nothing is left to do here"
        if self.metadata is None:
            return f"{done}; {self.missing} files are still to be written by other processes"
        skipped = f", {self.metadata.skipped} images could not be read" if self.metadata.skipped else ""
        return (
            f"{done}; all {self.metadata.count:,} records are there, {self.bytes_per_image:,.0f} bytes/image{skipped}"
        )


def describe_source(data: DataConfig) -> str:
    """Name, split and place of the images, as metadata.json has them."""
    words = [data.source, data.name] + ([] if data.source in _ONE_PART else [data.split]) + [data.path]
    return " ".join(word for word in words if word)


def expected_size(metadata: LatentMetadata, captions: float, output: Place) -> str:
    """In words; captions: of an image, on average."""
    moments, states = 4 * len(MOMENTS) * math.prod(metadata.shape), metadata.bytes_per_caption
    parts = f"{moments / 2**10:,.1f} KiB of moments"
    if states:
        parts += (
            f" and {states / 2**10:,.1f} KiB for each of about {captions:.1f} captions ({metadata.text_length} x "
            f"{metadata.text_width} in {metadata.text_dtype})"
        )
    total = metadata.count * (moments + captions * states)
    return (
        f"an image takes {parts}: {metadata.count:,} images about {total / 2**30:,.2f} GiB, and "
        f"{free_bytes(output) / 2**30:,.2f} GiB are free in {output}"
    )
