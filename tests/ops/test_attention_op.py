"""Attention backends against softmax attention written out in float64: values, gradients, scale, mask, precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ledit_jax.ops.attention import attention, attention_scale
from ledit_jax.ops.scan_masks import scan_mask

GRID, B, N, K = (3, 5), 2, 2, 8
BACKENDS = ("reference", "xla", "auto")
CAUSAL = np.array([True, False])


def inputs(dtype=np.float32, size=1.5):
    noise = np.random.default_rng(0).normal(size=(4, B, GRID[0] * GRID[1], N, K))
    return [jnp.asarray(size * a, dtype) for a in noise]


def oracle(q, k, v, scan="none", causal=None, logit_scale=1.0):
    """In float64 PyTorch, so that autograd gives the gradients; [B, T, N, K]."""
    mask = torch.from_numpy(scan_mask(scan, *GRID)).expand(B, N, -1, -1)
    if causal is not None:
        mask = mask | torch.from_numpy(~causal)[:, None, None, None]
    logits = torch.einsum("btnk,bsnk->bnts", q, k) * logit_scale / K**0.5
    weights = torch.where(mask, logits.exp(), 0.0)
    return torch.einsum("bnts,bsnk->btnk", weights / weights.sum(-1, keepdim=True), v)


CASES = {
    "plain": {},
    "scan d": {"scan": "d"},
    "scan c, one sample causal": {"scan": "c", "causal": CAUSAL},
    "scan a, scaled": {"scan": "a", "logit_scale": 1.118},
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(backend, case):
    *qkv, cotangent = inputs()
    kwargs = CASES[case]
    ours = kwargs | {"causal": jnp.asarray(CAUSAL)} if "causal" in kwargs else kwargs
    out, vjp = jax.vjp(lambda q, k, v: attention(q, k, v, grid=GRID, backend=backend, **ours), *qkv)

    leaves = [torch.tensor(np.asarray(a), dtype=torch.float64, requires_grad=True) for a in qkv]
    want = oracle(*leaves, **kwargs)
    want.backward(torch.tensor(np.asarray(cotangent), dtype=torch.float64))
    np.testing.assert_allclose(out, want.detach(), atol=2e-6, rtol=2e-5)
    for got, leaf in zip(vjp(cotangent), leaves, strict=True):
        np.testing.assert_allclose(got, leaf.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_argument_changes_the_result(backend):
    *qkv, _ = inputs()
    outs = [
        np.asarray(attention(*qkv, grid=GRID, backend=backend, **kwargs))
        for kwargs in ({}, {"scan": "d"}, {"scan": "d", "causal": jnp.asarray(CAUSAL)}, {"logit_scale": 1.118})
    ]
    assert all(abs(a - b).max() > 1e-2 for i, a in enumerate(outs) for b in outs[:i])


@pytest.mark.parametrize("backend", BACKENDS)
def test_huge_logits_stay_finite(backend):
    *qkv, _ = inputs(size=1e3)
    loss = lambda q, k, v: attention(q, k, v, grid=GRID, scan="b", backend=backend).sum()  # noqa: E731
    value, grads = jax.value_and_grad(loss, argnums=(0, 1, 2))(*qkv)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_in_and_out_with_a_float32_softmax(backend):
    *qkv, _ = inputs(jnp.bfloat16)
    run = lambda q, k, v: attention(q, k, v, grid=GRID, scan="d", backend=backend)  # noqa: E731
    out = run(*qkv)
    want = oracle(*[torch.tensor(np.asarray(a, np.float64)) for a in qkv], scan="d")
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(out, np.float64), want, atol=0.03)
    exponentials = [eqn for eqn in jax.make_jaxpr(run)(*qkv).eqns if eqn.primitive.name == "exp"]
    assert [eqn.invars[0].aval.dtype for eqn in exponentials] == [jnp.float32]


def test_attention_scale_has_the_paper_s_values():
    got = [attention_scale((side // 16) ** 2, 256) for side in (384, 512, 768, 1024)]
    np.testing.assert_allclose(got, [1.071, 1.118, 1.182, 1.225], atol=6e-4)
    assert attention_scale(256, 256) == attention_scale(64, 256) == 1.0
