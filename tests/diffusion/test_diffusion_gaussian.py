"""The losses and the reverse Gaussians, against diffusers, scipy and the equations in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from diffusers import DDPMScheduler
from oracles.torch_training import dit_losses

from ledit_jax.diffusion.gaussian import create_diffusion, discretized_gaussian_log_likelihood, normal_kl

SHAPE = (4, 3, 5, 2)
T = jnp.array([0, 1, 300, 999])


def draw(seed, *, scale=1.0):
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=SHAPE), jnp.float32)


def constant(eps, v):
    """A denoiser that answers eps and v whatever it is asked."""
    return lambda x, timesteps: jnp.concatenate([eps, v], axis=-1)


def ddpm_of_diffusers(**options):
    scheduler = DDPMScheduler(
        1000, beta_start=1e-4, beta_end=0.02, variance_type="learned_range", clip_sample=False, **options
    )
    # Float64, so that differences are ours and not the oracle's.
    scheduler.alphas_cumprod = torch.tensor(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    return scheduler


def to_torch(x):
    return torch.tensor(np.moveaxis(np.asarray(x, np.float64), -1, 1))


def from_torch(x):
    return np.moveaxis(x.numpy(), 1, -1)


@pytest.mark.parametrize("t", [T, jnp.array(300), 999])
def test_q_sample_is_diffusers_add_noise(t):
    x0, noise = draw(0), draw(1)
    each = torch.tensor(np.broadcast_to(np.asarray(t), 4).copy())
    expected = from_torch(ddpm_of_diffusers().add_noise(to_torch(x0), to_torch(noise), each))
    ours = create_diffusion().q_sample(x0, t, noise)
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


def test_q_sample_statistics():
    noise = jax.random.normal(jax.random.key(0), (3, 128, 128, 4))
    t = jnp.array([0, 200, 999])
    x = np.asarray(create_diffusion().q_sample(jnp.full(noise.shape, 2.0), t, noise))
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[np.asarray(t)]
    np.testing.assert_allclose(x.mean(axis=(1, 2, 3)), 2 * np.sqrt(alpha_bar), atol=0.02)
    np.testing.assert_allclose(x.std(axis=(1, 2, 3)), np.sqrt(1 - alpha_bar), rtol=0.02)


@pytest.mark.parametrize("respacing, index", [("", 1), ("", 999), ("250", 1), ("250", 100), ("250", 249)])
def test_p_mean_variance_is_that_of_diffusers(respacing, index):
    x, eps, v = draw(2), draw(3), draw(4, scale=0.5)
    diffusion = create_diffusion(respacing)
    ours = diffusion.p_mean_variance(constant(eps, v), x, index)

    scheduler = ddpm_of_diffusers(timestep_spacing="linspace")
    scheduler.set_timesteps(diffusion.num_timesteps)
    timestep = int(diffusion.timestep_map[index])
    output = to_torch(np.concatenate([eps, v], axis=-1))
    step = scheduler.step(output, timestep, to_torch(x), generator=torch.Generator().manual_seed(0))
    noise = torch.randn((4, 2, 3, 5), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_variance = scheduler._get_variance(timestep, predicted_variance=to_torch(v))
    mean = step.prev_sample - torch.exp(0.5 * log_variance) * noise
    np.testing.assert_allclose(ours["log_variance"], from_torch(log_variance), rtol=1e-6)
    np.testing.assert_allclose(ours["variance"], np.exp(from_torch(log_variance)), rtol=1e-5)
    np.testing.assert_allclose(ours["pred_xstart"], from_torch(step.pred_original_sample), rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(ours["mean"], from_torch(mean), rtol=1e-5, atol=1e-5)


def test_first_element_takes_the_posterior_variance_of_the_second():
    diffusion = create_diffusion()
    low = diffusion.p_mean_variance(constant(draw(0), -jnp.ones(SHAPE)), draw(1), jnp.array([0, 1, 0, 1]))
    high = diffusion.p_mean_variance(constant(draw(0), jnp.ones(SHAPE)), draw(1), 0)
    betas = np.linspace(1e-4, 0.02, 1000)
    posterior = betas[1] * betas[0] / (1 - (1 - betas[0]) * (1 - betas[1]))
    np.testing.assert_allclose(low["variance"], np.full(SHAPE, posterior), rtol=1e-5)
    np.testing.assert_allclose(high["variance"], np.full(SHAPE, betas[0]), rtol=1e-5)
    np.testing.assert_allclose(high["mean"], high["pred_xstart"], rtol=1e-6)


def test_clipping_is_asked_for():
    diffusion, x = create_diffusion(), 5 * jnp.ones(SHAPE)
    denoise = constant(jnp.zeros(SHAPE), jnp.zeros(SHAPE))
    assert diffusion.p_mean_variance(denoise, x, 10)["pred_xstart"].min() > 5
    assert diffusion.p_mean_variance(denoise, x, 10, clip_denoised=True)["pred_xstart"].max() == 1


def test_training_losses_are_the_equations():
    x0, noise, v = draw(0, scale=0.7), draw(1), draw(3, scale=0.5)
    eps = noise + 0.3 * draw(2)
    losses = jax.jit(lambda: create_diffusion().training_losses(constant(eps, v), x0, T, noise))()
    expected = dit_losses(*(torch.tensor(np.asarray(a)).double() for a in (x0, T, noise, eps, v)))
    for name, value in zip(("mse", "vb"), expected, strict=True):
        assert losses[name].shape == (4,) and losses[name].dtype == jnp.float32
        np.testing.assert_allclose(losses[name], value, rtol=2e-4)
    np.testing.assert_allclose(losses["loss"], sum(expected), rtol=2e-4)


def test_training_losses_are_float32_for_a_bfloat16_network():
    x0, noise = draw(0), draw(1)
    losses = create_diffusion().training_losses(
        lambda x, timesteps: jnp.zeros((*x.shape[:-1], 4), jnp.bfloat16), x0, T, noise
    )
    assert {name: value.dtype for name, value in losses.items()} == dict.fromkeys(("loss", "mse", "vb"), jnp.float32)
    np.testing.assert_allclose(losses["mse"], np.mean(noise**2, axis=(1, 2, 3)), rtol=1e-5)


def test_a_perfect_prediction_has_no_divergence():
    x0, noise = draw(0), draw(1)
    losses = create_diffusion().training_losses(constant(noise, -jnp.ones(SHAPE)), x0, T, noise)
    np.testing.assert_allclose(losses["mse"], 0)
    np.testing.assert_allclose(losses["vb"][1:], 0, atol=1e-6)
    assert losses["vb"][0] > 0.1


@pytest.mark.parametrize("name, reaches_eps, reaches_v", [("mse", True, False), ("vb", False, True)])
def test_each_loss_trains_its_own_half(name, reaches_eps, reaches_v):
    x0, noise = draw(0, scale=0.5), draw(1)

    def loss(eps, v):
        return create_diffusion().training_losses(constant(eps, v), x0, T, noise)[name].sum()

    to_eps, to_v = jax.jit(jax.grad(loss, argnums=(0, 1)))(noise + 0.1 * draw(2), 0.1 * draw(3))
    assert np.all(np.isfinite(to_eps)) and np.all(np.isfinite(to_v))
    for gradient, reaches in ((to_eps, reaches_eps), (to_v, reaches_v)):
        assert np.all(np.any(gradient != 0, axis=(1, 2, 3)) == reaches)


@pytest.mark.parametrize("mean1, logvar1, mean2, logvar2", [(0.3, -1.0, -0.2, 0.5), (0, -9, 0.01, -9), (0, 1, 2, -2)])
def test_normal_kl_is_the_integral(mean1, logvar1, mean2, logvar2):
    p, q = (scipy.stats.norm(m, np.exp(0.5 * s)) for m, s in ((mean1, logvar1), (mean2, logvar2)))
    low, high = p.ppf(1e-15), p.ppf(1 - 1e-15)
    expected, _ = scipy.integrate.quad(lambda z: p.pdf(z) * (p.logpdf(z) - q.logpdf(z)), low, high, epsabs=1e-10)
    ours = normal_kl(*(jnp.float32(a) for a in (mean1, logvar1, mean2, logvar2)))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_normal_kl_of_nearly_equal_variances_is_not_rounding_error():
    ours = normal_kl(jnp.float32(0), jnp.float32(1e-3), jnp.float32(0), jnp.float32(0))
    np.testing.assert_allclose(ours, 0.5 * (np.expm1(1e-3) - 1e-3), rtol=1e-3)


@pytest.mark.parametrize("scale", [0.003, 0.02, 0.5])
def test_bin_probabilities_are_those_of_scipy(scale):
    x = np.linspace(-1, 1, 256)
    mean = 0.8 * x + 0.05 * np.sin(9 * x)
    edges = np.concatenate([[-np.inf], (x[1:] + x[:-1]) / 2, [np.inf]])
    normal = scipy.stats.norm(mean, scale)
    expected = normal.cdf(edges[1:]) - normal.cdf(edges[:-1])
    image = (1, 16, 16, 1)
    x, mean = (jnp.asarray(a, jnp.float32).reshape(image) for a in (x, mean))
    ours = np.exp(discretized_gaussian_log_likelihood(x, mean, jnp.full(image, np.log(scale)))).ravel()
    np.testing.assert_allclose(ours, expected, atol=4e-4)  # The tanh form of the CDF is this far off.
    np.testing.assert_allclose(ours.min(), max(expected.min(), 1e-12), rtol=0.3)
