"""One training step as a pure function of state, batch and key."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from ledit_jax.config import TrainConfig
from ledit_jax.diffusion import Process, drop_condition
from ledit_jax.models import Network, make_apply
from ledit_jax.training.optimizer import make_optimizer
from ledit_jax.training.state import TrainState

Batch = dict[str, PyTree[jax.Array]]
"""{"x": float32 [B, H, W, C], "condition": what the network's `ConditionSpec` makes of records}"""

_WITHIN_NETWORK = 3
"""fold_in data of what a network draws itself; beyond the keys that a step splits off."""


def draw_dilation(config: TrainConfig, seed: int, step: int) -> int:
    """The convolution's dilation at a step: one of `dilation_rates` with `dilation_probability`, else 1.

    seed: the run's, which is that of the config only where it starts from scratch (`init_from.run_seed`). Drawn on the
    host and given to the step as a static argument: two compiled steps are faster than a branch on the device, and
    every process draws the same.
    """
    rng = np.random.default_rng([seed, step])
    return int(rng.choice(config.dilation_rates)) if rng.random() < config.dilation_probability else 1


def step_settings(config: TrainConfig) -> TrainConfig:
    """The config with defaults wherever `make_train_step` does not look: equal ones share a compiled step."""
    names = ("accumulation_steps", "learning_rate", "weight_decay", "warmup_steps", "decay_steps", "grad_clip")
    names += ("ema_decay", "label_dropout") + (("num_steps",) if config.decay_steps else ())
    return TrainConfig(**{name: getattr(config, name) for name in names})


def make_train_step(
    network: Network, process: Process, config: TrainConfig
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """train_step(state, batch, key, dilation, is_logged) -> (state, metrics), to be jitted with `dilation` static.

    Randomness is fold_in(key, step), so a resumed run draws what an uninterrupted one would have drawn. A step whose
    loss, gradient or resulting weights are not finite, or so large that their norms are not, changes nothing but the
    counters. Metrics are the losses, `grad_norm`, `ema_drift` (norm of ema - params over norm of params, as they would
    have become) and `nonfinite_steps`, all scalars. is_logged: without it `ema_drift` is NaN, and all weights are read
    once less for it.
    """
    apply, optimizer = make_apply(network), make_optimizer(config)

    def loss_fn(params, batch: Batch, key, dilation: int):
        x0 = batch["x"]
        times_key, noise_key, drop_key = jax.random.split(key, 3)
        times = process.draw_times(times_key, len(x0))
        null = network.condition.null(len(x0))
        condition = drop_condition(batch["condition"], null, drop_key, config.label_dropout)

        def denoise(x, t):
            return apply(params, x, t, condition, dilation, jax.random.fold_in(key, _WITHIN_NETWORK))

        losses = process.training_losses(denoise, x0, times, jax.random.normal(noise_key, x0.shape))
        losses = {name: value.mean() for name, value in losses.items()}
        return losses["loss"], losses

    def gradients(params, batch: Batch, key, dilation: int):
        grad_fn = jax.grad(loss_fn, has_aux=True)
        if config.accumulation_steps == 1:
            return grad_fn(params, batch, key, dilation)
        return _accumulate(grad_fn, config.accumulation_steps, params, batch, key, dilation)

    def kept(new, old):
        """`new` but for what is frozen: there even a weight decay, or the rounding of an average, would add up."""
        return new | {name: old[name] for name in network.frozen}

    def updated(state: TrainState, grads):
        """(parameters, EMA, optimiser's state) after a step."""
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = kept(optax.apply_updates(state.params, updates), state.params)
        decay = config.ema_decay
        # Not optax.incremental_update, whose sum is rounded in another order.
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, params)
        return params, kept(ema, state.ema), opt_state

    def norms(state: TrainState, grads):
        """Of what the EMA is away from the parameters, and of the parameters."""
        params, ema, _ = updated(state, grads)
        return optax.tree.norm(jax.tree.map(jnp.subtract, ema, params)), optax.tree.norm(params)

    def train_step(state: TrainState, batch: Batch, key: jax.Array, dilation: int = 1, is_logged: bool | Array = True):
        grads, metrics = gradients(state.params, batch, jax.random.fold_in(key, state.step), dilation)
        grads = kept(grads, jax.tree.map(jnp.zeros_like, grads))
        grad_norm = optax.tree.norm(grads)
        if is_logged is True or _may_overflow(config):
            distance, size = norms(state, grads)
        else:
            distance, size = jax.lax.cond(is_logged, norms, lambda *_: (jnp.zeros(()), jnp.ones(())), state, grads)
        # With a finite gradient the optimiser's state is finite too.
        finite = jnp.isfinite(jnp.stack([metrics["loss"], grad_norm, distance, size])).all()
        params, ema, opt_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            updated(state, grads),
            (state.params, state.ema, state.opt_state),
        )
        nonfinite_steps = state.nonfinite_steps + jnp.where(finite, 0, 1)
        drift = jnp.where(is_logged, distance / size, jnp.nan)
        metrics |= {"grad_norm": grad_norm, "ema_drift": drift, "nonfinite_steps": nonfinite_steps}
        return TrainState(state.step + 1, nonfinite_steps, params, ema, opt_state), metrics

    return train_step


def _may_overflow(config: TrainConfig) -> bool:
    """Whether a step with a finite gradient may make weights that are not finite.

    AdamW moves a weight by a few learning rates at most and takes off rate times decay of it, so that it takes a rate
    beyond reason, and weights need not be judged at every step for the others.
    """
    return config.learning_rate * max(1.0, config.weight_decay) > 1


def _accumulate(grad_fn, num_parts: int, params, batch: Batch, key, dilation: int):
    """Mean gradient and metrics over `num_parts` micro-batches, one after the other."""
    # Neighbours go to different parts, so that each part stays spread over all devices.
    parts = jax.tree.map(lambda a: a.reshape(-1, num_parts, *a.shape[1:]).swapaxes(0, 1), batch)

    def body(total, part):
        index, part = part
        result = grad_fn(params, part, jax.random.fold_in(key, index), dilation)
        return jax.tree.map(jnp.add, total, result), None

    first = jax.tree.map(lambda a: a[0], parts)
    zeros = jax.tree.map(
        lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(lambda: grad_fn(params, first, key, dilation))
    )
    total, _ = jax.lax.scan(body, zeros, (jnp.arange(num_parts), parts))
    return jax.tree.map(lambda a: a / num_parts, total)
