"""RMSNorm over each head's queries and keys, against PyTorch's."""

import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from flax import nnx

from ledit_jax.config import ModelConfig
from ledit_jax.models.attention import Attention, AttentionContext


def test_attention_with_normalised_queries_and_keys():
    config = ModelConfig(width=32, num_heads=4, qk_norm="rms")
    module, rng = Attention(config, nnx.Rngs(0)), np.random.default_rng(0)
    for norm in (module.q_norm, module.k_norm):
        norm.scale[...] = jnp.asarray(rng.uniform(0.5, 2, size=8), jnp.float32)
    x = rng.normal(size=(2, 6, 32)).astype(np.float32)
    run = lambda: np.asarray(module(jnp.asarray(x), AttentionContext((2, 3)), "none")[0])  # noqa: E731
    out = run()

    def linear(layer, a):
        return F.linear(
            a, torch.from_numpy(np.array(layer.kernel[...]).T.copy()), torch.from_numpy(np.array(layer.bias[...]))
        )

    q, k, v = (a.unflatten(-1, (4, 8)).transpose(1, 2) for a in linear(module.qkv, torch.from_numpy(x)).chunk(3, -1))
    q, k = (
        F.rms_norm(a, (8,), torch.from_numpy(np.array(norm.scale[...])), 1e-6)
        for a, norm in ((q, module.q_norm), (k, module.k_norm))
    )
    want = linear(module.proj, F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    np.testing.assert_allclose(out, want, atol=2e-6)

    # However large the projection makes them, the logits stay as they are.
    module.qkv.kernel[...] = module.qkv.kernel[...] * jnp.repeat(jnp.array([1000.0, 1000.0, 1.0]), 32)
    np.testing.assert_allclose(run(), out, atol=1e-5)
