"""Times the input pipeline on one core: images against a bare PIL loop, and latents.

Images: JPEGs of 500x375 pixels (ImageNet's usual size) to 256x256. The bare loop opens, decodes, crops as ADM does
and keeps bytes: no shuffling, flips, floats or batches. Ours is the loader of a training run, which does all of these.
Latents: records of 32x32x4 moments, 64 KiB each, to posterior samples.

Both need a warm page cache and measure work, not disks. Rates are per second of processor time on one core, which a
busy machine changes less than the wall; the two sides take turns. See benchmarks/README.md for results.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from tqdm import tqdm  # noqa: E402

from ledit_jax.config import AutoencoderConfig, Config, DataConfig, model_preset  # noqa: E402
from ledit_jax.data import Loader, make_loader  # noqa: E402
from ledit_jax.data.latent_metadata import LatentMetadata  # noqa: E402
from ledit_jax.data.latent_records import MOMENTS  # noqa: E402
from ledit_jax.data.latents import LatentWriter, write_metadata  # noqa: E402
from ledit_jax.flops import PEAK_BF16_FLOPS, train_step_flops  # noqa: E402

SIZE = 256
LATENT_SHAPE = (32, 32, 4)
MFU = 0.4
"""Share of an H100's peak that the step is assumed to reach, for the latents it consumes."""


def write_images(folder: Path, count: int) -> list[Path]:
    """JPEGs of quality 90 with edges, gradients and some noise: about as many bytes as ImageNet's."""
    rng = np.random.default_rng(0)
    (folder / "class").mkdir(parents=True)
    paths = []
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize(
            (500, 375), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(coarse, np.int16) + rng.integers(-12, 13, (375, 500, 3))
        paths.append(folder / "class" / f"{i:05d}.jpg")
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def pil_loop(path: Path) -> np.ndarray:
    """An image's bytes, decoded and cropped as in openai/guided-diffusion."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    while min(image.size) >= 2 * SIZE:
        image = image.resize(tuple(side // 2 for side in image.size), Image.Resampling.BOX)
    scale = SIZE / min(image.size)
    image = image.resize(tuple(round(side * scale) for side in image.size), Image.Resampling.BICUBIC)
    left, top = ((side - SIZE) // 2 for side in image.size)
    return np.asarray(image)[top : top + SIZE, left : left + SIZE]


def write_latents(folder: Path, count: int) -> None:
    """Latents of noise; what the numbers are costs nothing."""
    rng = np.random.default_rng(0)
    with LatentWriter(folder, LATENT_SHAPE) as writer:
        for i in range(count):
            moments = {name: rng.standard_normal(LATENT_SHAPE, np.float32) for name in MOMENTS}
            writer.write(moments | {"label": i % 1000})
    write_metadata(folder, LatentMetadata("none", 0.18215, SIZE, SIZE, 8, 4, "noise", 1000))


def open_loader(source: str, folder: Path, batch_size: int) -> Loader:
    """The loader that a training run would open, reading in this process."""
    config = DataConfig(source=source, path=str(folder), image_height=SIZE, image_width=SIZE)
    autoencoder = AutoencoderConfig(kind="sd" if source == "latents" else "none")
    return make_loader(config, autoencoder, condition=class_label, batch_size=batch_size, seed=0)


def class_label(record: dict, rng: np.random.Generator) -> np.int32:
    """What conditions the network."""
    return np.int32(record["label"])


def rate(run: Callable[[], int]) -> float:
    """What `run` counts, per second of processor time."""
    start = time.process_time()
    count = run()
    return count / (time.process_time() - start)


def loader_rate(source: str, folder: Path, batch_size: int, batches: int) -> float:
    """Records per second of a loader in its stride: as much is read ahead when the clock starts as when it stops."""
    loader = open_loader(source, folder, batch_size)
    for _ in range(8):
        next(loader)
    result = rate(lambda: sum(len(next(loader)["x"]) for _ in range(batches)))
    loader.close()  # so that nothing is read while the other side is timed
    return result


def measure(folder: Path, rounds: int) -> dict[str, float]:
    """Medians over the rounds, and the median ratio of neighbours in time."""
    paths = write_images(folder / "images", count=128)
    write_latents(folder / "latents", count=4096)
    rows: list[tuple[float, float, float]] = []
    for i in tqdm(range(rounds + 1), desc="rounds", disable=None):
        bare = rate(lambda: sum(1 for path in paths if pil_loop(path) is not None))
        ours = loader_rate("image_folder", folder / "images", batch_size=8, batches=16)
        row = bare, ours, loader_rate("latents", folder / "latents", batch_size=256, batches=32)
        rows += [row] * (i > 0)  # the first warms up
    bare, ours, fed = (statistics.median(column) for column in zip(*rows, strict=True))
    ratio = statistics.median(ours / bare for bare, ours, _ in rows)
    return {"pil_images_per_sec": bare, "images_per_sec": ours, "ratio": ratio, "latents_per_sec": fed}


def h100_consumption() -> float:
    """Images per second that a training step of LEDiT-XL/2 at 256x256 takes on one H100, at the assumed MFU."""
    data = DataConfig(source="latents", image_height=SIZE, image_width=SIZE)
    config = Config(model=model_preset("LEDiT-XL/2"), data=data, autoencoder=AutoencoderConfig(kind="sd"))
    per_image = train_step_flops(config) / config.train.batch_size
    return MFU * PEAK_BF16_FLOPS["NVIDIA H100 80GB HBM3"] / per_image


def main() -> None:
    """Parses flags, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="timed rounds of both sides (default: 10)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the result there as well")
    args = parser.parse_args()
    if args.rounds < 3:
        parser.error(f"--rounds={args.rounds} is too few for a median to mean anything: use at least 3")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), args.rounds)
    need = h100_consumption()
    print(f"bare PIL loop   {result['pil_images_per_sec']:8.1f} images/s and core")
    print(f"loader          {result['images_per_sec']:8.1f} images/s and core, {result['ratio']:.2f} of the bare loop")
    print(f"latents         {result['latents_per_sec']:8.0f} latents/s and core")
    print(
        f"XL/2 on an H100 {need:8.0f} latents/s at {MFU:.0%} MFU: {result['latents_per_sec'] / need:.1f} from one core"
    )
    if args.json:
        args.json.write_text(json.dumps(result | {"h100_latents_per_sec": need}, indent=2) + "\n")


if __name__ == "__main__":
    main()
