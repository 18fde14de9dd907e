"""What a network calls frozen passes through a training step bit for bit, and counts in no norm."""

import jax
import jax.numpy as jnp
import numpy as np
from tiny import network_of, noisy_params, tiny_config

from ledit_jax.diffusion import make_process
from ledit_jax.models import LEDiTNetwork
from ledit_jax.training.state import init_state
from ledit_jax.training.step import make_train_step

NAME = "timestep_embed"
CONFIG = tiny_config("NoPE", train=dict(weight_decay=0.1, learning_rate=0.01))


class Frozen(LEDiTNetwork):
    frozen = (NAME,)


def test_frozen_parameters_stay_as_they_are():
    network = Frozen(**vars(network_of(CONFIG)))
    params = noisy_params(CONFIG)
    batch = {"x": jax.random.normal(jax.random.key(0), (8, 8, 8, 1)), "condition": jnp.arange(8, dtype=jnp.int32)}
    after, norms = [], []
    for one in (network, network_of(CONFIG)):
        step = jax.jit(make_train_step(one, make_process(CONFIG), CONFIG.train))
        state = init_state(one, CONFIG.train, jax.random.key(0), params)
        for _ in range(2):
            state, metrics = step(state, batch, jax.random.key(1))
            norms.append(float(metrics["grad_norm"]))
        after.append(state)
    for kept in (after[0].params, after[0].ema):
        jax.tree.map(np.testing.assert_array_equal, kept[NAME], params[NAME])
        assert (kept["final_layer"]["linear"]["kernel"] != params["final_layer"]["linear"]["kernel"]).any()
    assert (after[1].params[NAME]["fc1"]["kernel"] != params[NAME]["fc1"]["kernel"]).any()
    assert norms[0] < norms[2], "a frozen parameter's gradient counts in the norm"
