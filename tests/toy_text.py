"""A text encoder of nothing but noise: states that depend on the text, the seed and nothing else."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ToyText:
    """States [length, width] drawn from a normal whose seed is the text's checksum."""

    seed: int = 0
    length: int = 5
    width: int = 8
    name: str = "toy"

    @property
    def fingerprint(self) -> str:
        return f"toy-{self.seed}"

    def __call__(self, prompts: Sequence[str]) -> np.ndarray:
        seeds = [(self.seed, zlib.crc32(prompt.encode())) for prompt in prompts]
        draws = [np.random.default_rng(seed).standard_normal((self.length, self.width)) for seed in seeds]
        return np.stack(draws).astype(np.float32)
