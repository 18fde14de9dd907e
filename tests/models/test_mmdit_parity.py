"""MMDiT against diffusers' SD3Transformer2DModel without pooled text: outputs, the scan, the null, and H != W."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from oracles.sd3 import TIMES, Scanned, inputs, our_config, our_peer, run_theirs, scan_with_text, their_model


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
    with torch.no_grad():
        want = run_theirs(model, x, seen).numpy()
    got = jax.jit(apply)(params, x, TIMES, {"states": jnp.asarray(states), "given": jnp.asarray(given)})
    assert got.dtype == jnp.float32 and np.abs(want).max() > 0.5
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
