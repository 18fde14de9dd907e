"""What a run does every so often beside training: sample grids, a loss on held-out data, or a caller's own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from ledit_jax.diffusion import Process
from ledit_jax.models import Network, Params, make_apply
from ledit_jax.training.step import Batch


@dataclass(frozen=True)
class Hook:
    """Called every `every` steps as run(EMA weights, step), by all processes of a run.

    What it returns, if anything, is logged beside the metrics of that step.
    """

    every: int
    run: Callable[[Params, int], Mapping[str, float] | None]


def held_out_loss(network: Network, process: Process, batches: Sequence[Batch], every: int) -> Hook:
    """Logs `held_out_loss`: the mean loss over these batches, always with the same times and noise, nothing dropped."""
    apply = make_apply(network)

    @jax.jit
    def loss(params: Params, batch: Batch, key: jax.Array) -> jax.Array:
        times_key, noise_key = jax.random.split(key)
        x0 = batch["x"]
        losses = process.training_losses(
            lambda x, t: apply(params, x, t, batch["condition"]),
            x0,
            process.draw_times(times_key, len(x0)),
            jax.random.normal(noise_key, x0.shape),
        )
        return losses["loss"].mean()

    def run(params: Params, step: int) -> dict[str, float]:
        losses = [loss(params, batch, jax.random.key(index)) for index, batch in enumerate(batches)]
        return {"held_out_loss": float(np.mean(jax.device_get(losses)))}

    return Hook(every, run)
