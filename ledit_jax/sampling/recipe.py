"""What a run of samples depends on, and what each of them shows."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ledit_jax.config import SampleConfig
from ledit_jax.errors import ConfigError
from ledit_jax.hub import resolve
from ledit_jax.sampling.pipeline import LEDiTPipeline
from ledit_jax.sampling.prompts import check_prompts
from ledit_jax.weights import find_checkpoint, load_description, weights_id

_OF_TEXT = ("prompts", "text_id", "negative_prompt")


@dataclass(frozen=True)
class Recipe:
    """Everything that a run of samples depends on; saved beside them, and compared before one is gone on with."""

    checkpoint: str
    step: int
    """The training step of the checkpoint."""
    weights: str
    """"ema" or "params"."""
    weights_id: str
    """See `ledit_jax.weights.weights_id`: a checkpoint that was trained anew has another one."""
    vae: str | None
    vae_id: str | None
    """The same of the autoencoder."""
    labels: Literal["balanced", "random"]
    classes: tuple[int, ...]
    num_samples: int
    height: int
    width: int
    seed: int
    options: SampleConfig
    prompts: tuple[str, ...] | None = None
    """Of a model that draws from text, which has no classes."""
    text_id: str | None = None
    """Fingerprint of the encoder of the prompts."""

    def choose(self) -> list[int] | list[str]:
        """What each sample shows. "balanced": the classes, or the prompts, in turn, so that their counts differ by one
        at most. "random": each uniformly drawn.

        What sample i shows does not depend on the number of samples.
        """
        choices = self.classes if self.prompts is None else self.prompts
        if self.labels == "balanced":
            places = np.arange(self.num_samples) % len(choices)
        else:
            generator = np.random.Generator(np.random.Philox(key=[self.seed % 2**64, 1]))
            places = np.floor(generator.random(self.num_samples) * len(choices)).astype(int)
        return [choices[place] for place in places]

    def to_dict(self) -> dict[str, Any]:
        """Flat, as JSON gives it back; what is about text only where there are prompts."""
        values = dataclasses.asdict(self)
        values |= values.pop("options")
        if self.prompts is None:
            values = {name: value for name, value in values.items() if name not in _OF_TEXT}
        return json.loads(json.dumps(values))


def make_recipe(
    pipeline: LEDiTPipeline,
    *,
    checkpoint: str | Path,
    options: SampleConfig,
    classes: Sequence[int] | None = None,
    prompts: Sequence[str] | None = None,
    num_samples: int | None = None,
    height: int | None = None,
    width: int | None = None,
    labels: str = "balanced",
    weights: str = "ema",
    vae: str | None = None,
    seed: int = 0,
) -> Recipe:
    """By default all classes, one image of each, of the size that the checkpoint was trained at.

    Of a model that draws from text, one image of each prompt; they have no default. Raises ConfigError.
    """
    config, folder = pipeline.config, find_checkpoint(checkpoint)
    _check_kind(pipeline, classes, prompts)
    if pipeline.prompts.are_text:
        classes, prompts = (), tuple(" ".join(prompt.split()) for prompt in prompts)
        check_prompts(prompts)
    else:
        classes = tuple(range(config.model.num_classes)) if classes is None else tuple(classes)
    num_samples = len(prompts or classes) if num_samples is None else num_samples
    if num_samples < 1:
        raise ConfigError(f"num_samples={num_samples} must be at least 1")
    vae = resolve(vae or config.autoencoder.checkpoint or pipeline.about.autoencoder) or None
    return Recipe(
        checkpoint=str(folder),
        step=load_description(folder)["step"],
        weights=weights,
        weights_id=weights_id(folder, weights),
        vae=vae,
        vae_id=weights_id(vae, "vae") if vae else None,
        labels=labels,
        classes=classes,
        num_samples=num_samples,
        height=config.data.image_height if height is None else height,
        width=config.data.image_width if width is None else width,
        seed=seed,
        options=options,
        prompts=prompts,
        text_id=getattr(pipeline.prompts.encoder, "fingerprint", None) if prompts else None,
    )


def _check_kind(pipeline: LEDiTPipeline, classes: Sequence[int] | None, prompts: Sequence[str] | None) -> None:
    """Raises ConfigError for classes where the model draws from text, and the other way round."""
    if not pipeline.prompts.are_text and prompts is not None:
        last = pipeline.config.model.num_classes - 1
        raise ConfigError(
            f"prompts are for models of text, and this one has classes: give class_labels from 0 to {last}"
        )
    if pipeline.prompts.are_text and classes is not None:
        raise ConfigError(f"class_labels={list(classes)[:8]} are for models of classes, and this one draws from text")
    if pipeline.prompts.are_text and not prompts:
        raise ConfigError("this model draws from text, and there is no prompt: give prompt, or a file of prompts")
