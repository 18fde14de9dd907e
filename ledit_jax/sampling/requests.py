"""What is asked of a pipeline, looked at before anything runs: numbers that cannot be, and what memory cannot hold."""

from typing import Any

from jax.sharding import Mesh

from ledit_jax.config import Config, SampleConfig
from ledit_jax.errors import ConfigError
from ledit_jax.models import Network
from ledit_jax.parallel.memory import check_fits, device_memory


def check_numbers(height: Any, width: Any, batch_size: Any, seed: Any) -> None:
    """Raises ConfigError for what is no whole number (a size may be None), and for one that cannot be."""
    for name, value in {"height": height, "width": width, "batch_size": batch_size, "seed": seed}.items():
        if not (hasattr(value, "__index__") or (value is None and name in ("height", "width"))):
            raise ConfigError(f"{name}={value!r:.40} is no whole number")
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size} must be at least 1")
    if not -(2**63) <= seed < 2**63:
        raise ConfigError(f"seed={seed} is too large: use one that is less than 2^63")


def check_options(options: Any) -> SampleConfig:
    """The options. Raises ConfigError for what is no SampleConfig."""
    if not isinstance(options, SampleConfig):
        raise ConfigError(f"options={options!r:.60} is no SampleConfig: take what the pipeline's options(...) returns")
    return options


def check_memory(
    config: Config,
    network: Network,
    mesh: Mesh,
    options: SampleConfig,
    batch_size: int,
    images: int,
    height: int | None,
    width: int | None,
) -> None:
    """Raises ConfigError, with an estimate, where a device cannot hold so many images at once.

    batch_size: what was asked for, of which `images` are drawn on each device. Sizes are by default the training size.
    """
    height = config.data.image_height if height is None else height
    width = config.data.image_width if width is None else width
    passes = 1 if options.cfg_scale == 1 else 2  # each image is drawn with its condition and without
    what, advice = (
        f"batch_size={batch_size} with height={height} and width={width}",
        "use a smaller batch or smaller images",
    )
    memory = device_memory(mesh.devices.flatten().tolist()[:1])
    check_fits(what, config.least_activations(passes * images, height, width), memory, advice)
    tokens, platform = config.num_tokens(height, width), mesh.devices.flat[0].platform
    check_fits(
        f"attention's logits for {what}", network.least_logits(passes * images, tokens, platform), memory, advice
    )
