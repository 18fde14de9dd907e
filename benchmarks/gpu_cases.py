"""What benchmarks/gpu.py measures: the cases, their experiments and inputs, and the time of one of them."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from configs import imagenet256
from ledit_jax.config import Config
from ledit_jax.diffusion import make_process
from ledit_jax.flops import forward_flops
from ledit_jax.models import abstract_params, make_network

SIDES = {"jax": "ledit_jax", "sdpa": "PyTorch, SDPA", "flex": "PyTorch, FlexAttention"}
_TINY = dict(depth=2, width=32, num_heads=2, num_classes=10)
_WARM_UP = 3
_TRAIN_STEPS = 10


@dataclass(frozen=True)
class Case:
    """A row of the page for each of its sides."""

    task: str
    """"train", or a sampler's name: "ddpm", "dpmpp", or "ab2", which is a flow's."""
    model: str
    side: int
    """Of the image, in pixels."""
    batch: int
    """Images; in training the largest to try, and halved until every side has memory for it."""
    num_steps: int = 0
    """Of the sampler, all of which are timed."""
    sides: tuple[str, ...] = tuple(SIDES)
    remat: str = "dots"
    """Of our side, in training."""

    @property
    def name(self) -> str:
        """Without the batch, which is not settled before it is measured."""
        steps = f"-{self.num_steps}" if self.num_steps else ""
        remat = "" if self.remat == "dots" else f", remat {self.remat}"
        return f"{self.task}{steps} {self.model} at {self.side}{remat}"

    @property
    def is_training(self) -> bool:
        """Whether a step is the optimiser's."""
        return self.task == "train"


XL = "LEDiT-XL/2"
TRAINING = (
    Case("train", XL, 256, 256, sides=("sdpa", "jax", "flex")),  # PyTorch, which recomputes nothing, finds what fits
    Case("train", XL, 256, 256, sides=("jax",), remat="none"),
    *(Case("train", f"LEDiT-{size}/2", 256, 256, sides=("sdpa", "jax", "flex")) for size in "LBS"),
    Case("train", "DiT-XL/2", 256, 256, sides=("sdpa", "jax")),
)
SAMPLING = (
    *(Case(task, XL, 256, 8, steps) for task, steps in (("ddpm", 250), ("dpmpp", 25), ("ab2", 25))),
    *(Case(task, XL, 512, 8, steps) for task, steps in (("ddpm", 250), ("dpmpp", 25), ("ab2", 25))),
    Case("ddpm", "DiT-XL/2", 256, 8, 250, sides=("jax", "sdpa")),
)
MEMORY = (Case("dpmpp", XL, 1024, 2, 10), Case("dpmpp", XL, 2048, 2, 10))
"""4,096 and 16,384 tokens: a few steps are enough."""
ORDER = (TRAINING[0], SAMPLING[0], *MEMORY, *SAMPLING[1:3], *TRAINING[1:], *SAMPLING[3:])
"""The most telling first."""
DRY = (
    Case("train", XL, 32, 4, sides=("sdpa", "jax")),
    Case("ab2", XL, 32, 2, 3, sides=("jax",)),
    Case("ddpm", XL, 32, 2, 3, sides=("flex",)),
)
"""Every kind of program once, as small as it goes. FlexAttention trains on GPUs alone."""


def make_config(case: Case, dry_run: bool) -> Config:
    """The ImageNet experiment of a case, made tiny for a dry run."""
    values = imagenet256.experiment(case.model).to_dict()
    values["data"] |= {"image_height": case.side, "image_width": case.side}
    values["model"] |= {"remat": case.remat} | (_TINY if dry_run else {})
    if case.task == "ab2":
        values["diffusion"]["objective"], values["sample"]["sampler"] = "flow", "ab2"
    return Config.from_dict(values)


def make_inputs(config: Config, batch: int) -> dict[str, np.ndarray]:
    """Noisy latents NHWC, noise, timesteps and labels."""
    rng, shape = np.random.default_rng(0), (batch, *config.latent_shape())
    return {
        "x": rng.normal(size=shape).astype(np.float32),
        "noise": rng.normal(size=shape).astype(np.float32),
        "t": rng.integers(0, 1000, batch).astype(np.int32),
        "y": rng.integers(0, config.model.num_classes, batch).astype(np.int32),
    }


def step_flops(case: Case, config: Config, batch: int) -> int:
    """The model's own FLOPs of a step: forward and backward, or both halves of a guided call."""
    params = abstract_params(make_network(config, make_process(config)))
    return batch * forward_flops(params, config.token_grid()) * (3 if case.is_training else 2)


def measure(case: Case, runner: str, batch: int, dry_run: bool) -> dict[str, float]:
    """Seconds of the first step, of a later one (median) and of a whole run of the sampler; peak memory; FLOPs."""
    config = make_config(case, dry_run)
    inputs = make_inputs(config, batch)
    if runner == "jax":
        from benchmarks import gpu_jax

        step, peak = gpu_jax.make_step(config, case, inputs)
    else:
        from benchmarks import gpu_torch

        step, peak = gpu_torch.make_step(config, case, inputs, runner, dry_run)
    first, *_ = timed(step, 1 if dry_run else _WARM_UP)
    times = timed(step, case.num_steps or (2 if dry_run else _TRAIN_STEPS))
    facts = {"batch": batch, "first": first, "step": statistics.median(times), "memory": peak()}
    return facts | {"run": sum(times), "flops": step_flops(case, config, batch)}


def timed(step: Callable[[], float], count: int) -> list[float]:
    """Seconds of each of some steps. Raises ValueError where a step's result is not finite."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        result = step()
        times.append(time.perf_counter() - start)
        if not math.isfinite(result):
            raise ValueError(f"a step gives {result}")
    return times
