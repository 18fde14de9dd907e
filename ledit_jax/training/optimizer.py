"""AdamW as the paper sets it, with optional warm-up, final decay and clipping."""

import optax

from ledit_jax.config import TrainConfig


def learning_rate_schedule(config: TrainConfig) -> optax.Schedule:
    """Linear warm-up, then constant, then (if `decay_steps`) linear to zero at the last step."""
    rate, decay_start = config.learning_rate, config.num_steps - config.decay_steps
    pieces, boundaries = [optax.constant_schedule(rate)], []
    if config.warmup_steps:
        # From rate / n rather than 0, so that the first step already moves.
        warmup = optax.linear_schedule(rate / config.warmup_steps, rate, config.warmup_steps - 1)
        pieces, boundaries = [warmup, *pieces], [config.warmup_steps]
    if config.decay_steps:
        pieces, boundaries = [*pieces, optax.linear_schedule(rate, 0.0, config.decay_steps)], [*boundaries, decay_start]
    return optax.join_schedules(pieces, boundaries)


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """The same state structure whatever the settings, so that a resumed run may change them."""
    clip = optax.clip_by_global_norm(config.grad_clip) if config.grad_clip else optax.identity()
    return optax.chain(
        clip, optax.adamw(learning_rate_schedule(config), b1=0.9, b2=0.999, eps=1e-8, weight_decay=config.weight_decay)
    )
