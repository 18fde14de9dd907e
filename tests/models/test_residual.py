"""The residual stream's dtype: bfloat16 with the products, or float32 as PyTorch's autocast keeps it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import network_of, noisy_params, tiny_config

from experiments.theory.block_outputs import block_outputs
from ledit_jax.config import Config
from ledit_jax.errors import CheckpointError
from ledit_jax.models import abstract_params, make_apply
from ledit_jax.training.checkpoint import check_same_meaning

BASE = tiny_config("LEDiT", model=dict(width=64, num_heads=4, depth=4, scan_layers=True, post_norm=True))
X = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))
INPUTS = X, jnp.array([0, 300, 700, 999]), jnp.array([1, 2, 3, 10])


def config_of(dtype, residual):
    return BASE.replaced("model", dtype=dtype, residual_dtype=residual)


def streams(config):
    """What each block's attention mixed, and its output."""
    params = abstract_params(network_of(config))
    return jax.eval_shape(
        lambda *a: [(b.mixed, b.output) for b in block_outputs(a[0], config, *a[1:])], params, *INPUTS
    )


@pytest.mark.parametrize(
    "dtype, residual, expected",
    [("bfloat16", "same", "bfloat16"), ("bfloat16", "float32", "float32"), ("float32", "same", "float32")],
)
def test_the_stream_has_the_dtype_and_attention_keeps_its_own(dtype, residual, expected):
    for mixed, output in streams(config_of(dtype, residual)):
        assert output.dtype == expected and mixed.dtype == dtype


def test_every_product_stays_bfloat16():
    network = network_of(config_of("bfloat16", "float32"))
    text = jax.jit(make_apply(network)).lower(abstract_params(network), *INPUTS).as_text()
    products = [
        line for line in text.splitlines() if "stablehlo.dot_general" in line or "stablehlo.convolution" in line
    ]
    assert len(products) > 10
    assert all("xbf16>" in line.split(" : ")[-1].split("->")[0] for line in products)


def test_a_float32_stream_is_nearer_to_float32():
    params = noisy_params(BASE)

    def run(dtype, residual):
        return np.asarray(jax.jit(make_apply(network_of(config_of(dtype, residual))))(params, *INPUTS))

    exact = run("float32", "same")
    errors = {r: np.sqrt(np.mean((run("bfloat16", r) - exact) ** 2)) for r in ("same", "float32")}
    assert 0 < errors["float32"] < 0.95 * errors["same"]


def test_a_run_of_earlier_versions_keeps_its_bfloat16_stream(tmp_path):
    """Its config has no such field; resuming it with float32 would train another network, and is refused."""
    values = config_of("bfloat16", "same").to_dict()
    del values["model"]["residual_dtype"]
    old = Config.from_dict(values)
    assert old.model.residual == "bfloat16"
    with pytest.raises(CheckpointError, match="model.residual_dtype='float32', but .* was trained with 'same'"):
        check_same_meaning(old, config_of("bfloat16", "float32"), tmp_path)
