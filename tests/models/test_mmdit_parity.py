"""MMDiT against diffusers' SD3Transformer2DModel without pooled text: outputs, the scan, the null, and H != W."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from oracles.sd3 import (
    TIMES,
    Scanned,
    as_ours,
    inputs,
    named_parameters,
    our_config,
    our_peer,
    run_theirs,
    scan_with_text,
    their_model,
)

from ledit_jax.convert.tables import flatten_params


@pytest.mark.parametrize(
    "family, size, scan, qk_norm",
    [
        ("MMDiT", (8, 8), None, None),
        ("NoPE-MMDiT", (4, 12), None, "rms"),
        ("LEMMDiT", (8, 8), "d", None),
        ("LEMMDiT", (12, 6), "b", None),
    ],
)
def test_it_is_diffusers_network(family, size, scan, qk_norm):
    """And in one case their gradients, of every parameter and of the image."""
    model = their_model(qk_norm and "rms_norm")
    config = our_config(family, qk_norm=qk_norm or "none", **({"scan": scan} if scan else {}))
    apply, params = our_peer(model, config)
    if family != "MMDiT":
        model.pos_embed.pos_embed.zero_()
        model.pos_embed.pos_embed_max_size = 8
        model.pos_embed.register_buffer("pos_embed", torch.zeros(1, 64, 24))
    if scan:
        for block in model.transformer_blocks[1::2]:
            block.attn.set_processor(Scanned(scan_with_text(scan, size[0] // 2, size[1] // 2)))
    x, states = inputs(*size)
    given = np.array([True, True, False])
    seen = np.where(given[:, None, None], states, np.asarray(params["empty_caption"]))
    condition = {"states": jnp.asarray(states), "given": jnp.asarray(given)}
    image = torch.tensor(x, requires_grad=True)
    want = run_theirs(model, image, seen)
    if (scan, size) != ("d", (8, 8)):
        got = jax.jit(apply)(params, x, TIMES, condition)
    else:
        weight = np.random.default_rng(7).normal(size=want.shape).astype(np.float32)
        (want * torch.tensor(weight)).sum().backward()

        def loss(params, x):
            out = apply(params, x, jnp.asarray(TIMES), condition)
            return (out * weight).sum(), out

        (_, got), (of_params, of_x) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x)
        assert_close(of_x, image.grad.numpy())
        ours = flatten_params(of_params)
        assert not ours.pop("empty_caption").any()  # it is never trained
        theirs = as_ours({name: tensor.grad.numpy() for name, tensor in named_parameters(model)}, params)
        for name, gradient in theirs.items():
            assert_close(ours[name], gradient)
    want = want.detach().numpy()
    assert got.dtype == jnp.float32 and np.abs(want).max() > 0.5
    assert_close(got, want)


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
