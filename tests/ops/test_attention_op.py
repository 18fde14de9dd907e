"""Attention backends against softmax attention written out in float64: values, gradients, scale, mask, precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ledit_jax.errors import ConfigError
from ledit_jax.ops import cudnn_attention
from ledit_jax.ops.attention import attention, attention_scale, choose_backend
from ledit_jax.ops.scan_masks import SCANS, scan_mask

GRID, B, N, K = (3, 5), 2, 2, 8
BACKENDS = ("reference", "xla")
CAUSAL = np.array([True, False])


def inputs(dtype=np.float32, size=1.5, num_prefix=0):
    noise = np.random.default_rng(0).normal(size=(4, B, num_prefix + GRID[0] * GRID[1], N, K))
    return [jnp.asarray(size * a, dtype) for a in noise]


def oracle(q, k, v, scan="none", causal=None, logit_scale=1.0, num_prefix=0):
    """In float64 PyTorch, so that autograd gives the gradients; [B, T, N, K]."""
    mask = torch.ones(B, N, q.shape[1], q.shape[1], dtype=torch.bool)
    mask[..., num_prefix:, num_prefix:] = torch.from_numpy(scan_mask(scan, *GRID))
    if causal is not None:
        mask = mask | torch.from_numpy(~causal)[:, None, None, None]
    logits = torch.einsum("btnk,bsnk->bnts", q, k) * logit_scale / K**0.5
    weights = torch.where(mask, logits.exp(), 0.0)
    return torch.einsum("bnts,bsnk->btnk", weights / weights.sum(-1, keepdim=True), v)


CASES = {scan: {"scan": scan, "logit_scale": 1.118} for scan in SCANS} | {
    "plain": {},
    "c, one sample causal": {"scan": "c", "causal": CAUSAL},
    "a behind a prefix": {"scan": "a", "num_prefix": 4},
    "b behind a prefix, one sample causal": {"scan": "b", "num_prefix": 4, "causal": CAUSAL, "logit_scale": 1.118},
}
TOLERANCE = {"float32": dict(atol=1e-5, rtol=1e-4), "bfloat16": dict(atol=0.08, rtol=0.03)}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(backend, case, dtype):
    kwargs = CASES[case]
    *qkv, cotangent = inputs(dtype, num_prefix=kwargs.get("num_prefix", 0))
    ours = kwargs | {"causal": jnp.asarray(CAUSAL)} if "causal" in kwargs else kwargs
    out, vjp = jax.vjp(lambda q, k, v: attention(q, k, v, grid=GRID, backend=backend, **ours), *qkv)

    leaves = [torch.tensor(np.asarray(a, np.float64), requires_grad=True) for a in qkv]
    want = oracle(*leaves, **kwargs)
    want.backward(torch.tensor(np.asarray(cotangent, np.float64)))
    for got, expected in zip((out, *vjp(cotangent)), (want.detach(), *(a.grad for a in leaves)), strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(np.asarray(got, np.float64), expected, **TOLERANCE[dtype])


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


F32, BF16, F16 = np.dtype("float32"), jnp.dtype("bfloat16"), np.dtype("float16")


class TestChoice:
    @pytest.fixture(autouse=True)
    def hopper(self, monkeypatch):
        """A GPU of which nothing but its generation is asked."""
        monkeypatch.setattr(cudnn_attention, "_compute_capability", lambda: 9.0)

    @pytest.mark.parametrize(
        "platform, tokens, dtype, head_dim, backend",
        [
            ("cpu", 4096, BF16, 72, "xla"),
            ("tpu", 4096, BF16, 72, "splash"),
            ("tpu", 256, F32, 64, "splash"),
            ("tpu", 64, BF16, 72, "xla"),
            ("gpu", 64, BF16, 72, "cudnn"),
            ("gpu", 4096, F32, 72, "xla"),
            ("gpu", 4096, BF16, 36, "xla"),
        ],
    )
    def test_auto(self, platform, tokens, dtype, head_dim, backend):
        assert choose_backend(platform, tokens, dtype, head_dim) == backend
        assert choose_backend(platform, tokens, dtype, head_dim, has_bias=True) == "xla"

    def test_older_gpus_take_the_dense_one(self, monkeypatch):
        monkeypatch.setattr(cudnn_attention, "_compute_capability", lambda: 7.5)
        assert choose_backend("gpu", 256, BF16, 72) == "xla"
        assert "Ampere" in cudnn_attention.obstacle("gpu", BF16, 72)
        monkeypatch.setattr(cudnn_attention, "_compute_capability", lambda: 8.0)
        assert choose_backend("gpu", 256, BF16, 72) == "cudnn"
        assert "16, ... 128, not 136: use xla" in cudnn_attention.obstacle("gpu", BF16, 136)

    @pytest.mark.parametrize(
        "platform, dtype, head_dim, backend, message",
        [
            ("cpu", F32, 72, "cudnn", "cudnn needs an NVIDIA GPU, and this is a cpu: use xla"),
            ("tpu", BF16, 72, "cudnn", "cudnn needs an NVIDIA GPU, and this is a tpu: use splash"),
            ("gpu", F32, 72, "cudnn", "cudnn takes bfloat16 or float16, not float32: use xla, or model.dtype=bfloat16"),
            ("gpu", BF16, 36, "cudnn", "cudnn takes head dims of 8, 16, ... 256, not 36: use xla"),
            ("cpu", F32, 72, "splash", "splash needs a TPU, and this is a cpu: use xla"),
            ("gpu", BF16, 72, "splash", "splash needs a TPU, and this is a gpu: use cudnn"),
            ("tpu", F16, 72, "splash", "splash takes float32 or bfloat16, not float16: use xla"),
            ("tpu", BF16, 264, "splash", "splash takes bfloat16 head dims up to 256, not 264: use xla"),
            ("tpu", F32, 136, "splash", "splash takes float32 head dims up to 128, not 136: use xla"),
            ("cpu", F32, 72, "cuddn", "backend 'cuddn' is unknown: did you mean cudnn?"),
        ],
    )
    def test_a_backend_that_cannot_run_names_one_that_can(
        self, monkeypatch, platform, dtype, head_dim, backend, message
    ):
        monkeypatch.setattr("ledit_jax.ops.attention.current_platform", lambda: platform)
        array = jnp.zeros((1, 4, 1, head_dim), dtype)
        with pytest.raises(ConfigError, match=message):
            attention(array, array, array, grid=(2, 2), backend=backend)

    def test_a_fused_kernel_takes_no_bias(self, monkeypatch):
        monkeypatch.setattr("ledit_jax.ops.attention.current_platform", lambda: "tpu")
        array = jnp.zeros((1, 4, 1, 8))
        with pytest.raises(ConfigError, match="splash takes no bias on the logits, and this model has one: use xla"):
            attention(array, array, array, grid=(2, 2), backend="splash", bias=jnp.zeros((1, 4, 4)))
