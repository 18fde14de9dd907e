"""Respacing, the constants of a chain, and what the denoiser is fed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffusers import DDPMScheduler

from ledit_jax.diffusion.gaussian import create_diffusion
from ledit_jax.diffusion.schedule import gather, linear_alphas_cumprod, space_timesteps
from ledit_jax.errors import ConfigError


def test_alphas_cumprod_is_that_of_diffusers():
    scheduler = DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    np.testing.assert_allclose(create_diffusion().alphas_cumprod, scheduler.alphas_cumprod.numpy(), rtol=2e-5)
    np.testing.assert_allclose(create_diffusion().betas, scheduler.betas.numpy(), rtol=1e-6)


def test_chain_settings_reach_the_betas():
    betas = create_diffusion(num_timesteps=5, beta_start=0.1, beta_end=0.5).betas
    np.testing.assert_allclose(betas, [0.1, 0.2, 0.3, 0.4, 0.5], rtol=1e-12)


def test_respacing_to_250_takes_rounded_multiples():
    timesteps = create_diffusion("250").timestep_map
    np.testing.assert_array_equal(timesteps, np.rint(np.arange(250) * 999 / 249))
    assert timesteps[0] == 0 and timesteps[-1] == 999


def test_respacing_by_diffusers_linspace():
    scheduler = DDPMScheduler(1000, timestep_spacing="linspace")
    for count in (4, 10, 25, 100, 1000):
        scheduler.set_timesteps(count)
        np.testing.assert_array_equal(space_timesteps(1000, str(count)), scheduler.timesteps.numpy()[::-1])


def test_respacing_by_integer_stride():
    np.testing.assert_array_equal(space_timesteps(1000, "ddim50"), np.arange(0, 1000, 20))
    # 1000 / 7 is no integer, but the stride 143 gives seven steps (and so does 166: the smallest is taken).
    np.testing.assert_array_equal(space_timesteps(1000, "ddim7"), np.arange(0, 1000, 143))


def test_respacing_by_sections():
    # Sections 0..3, 4..6 and 7..9: the first takes the remainder.
    np.testing.assert_array_equal(space_timesteps(10, "2,3,2"), [0, 3, 4, 5, 6, 7, 9])
    timesteps = space_timesteps(1000, "10,10,20")
    assert [np.sum((timesteps >= a) & (timesteps < b)) for a, b in ((0, 334), (334, 667), (667, 1000))] == [10, 10, 20]
    np.testing.assert_array_equal(timesteps[:10], np.arange(0, 334, 37))
    assert set(np.diff(timesteps[20:])) == {17, 18}
    # An exact half: 9 / 2 rounds to the even 4.
    np.testing.assert_array_equal(space_timesteps(10, "3"), [0, 4, 9])


@pytest.mark.parametrize(
    "respacing, words",
    [
        ("ddim300", ("ddim300", "ddim250 or ddim334", "1000")),
        ("ddim1001", ("ddim1001", "1000")),
        ("ddimfifty", ("ddimfifty", "ddim50")),
        ("1001", ("1001", "at most 1000")),
        ("400,10,10", ("400", "334")),
        ("0", ("'0'", "250")),
        ("fast", ("fast", "250")),
        ("10,,10", ("10,,10", "10,10,20")),
    ],
)
def test_respacing_errors_name_the_value_and_the_remedy(respacing, words):
    with pytest.raises(ConfigError) as error:
        create_diffusion(respacing)
    message = str(error.value)
    assert "\n" not in message and "timestep_respacing" in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"num_timesteps": 0}, "diffusion.num_timesteps=0"),
        ({"beta_start": 0.0}, "diffusion.beta_start=0.0"),
        ({"beta_end": 1.0}, "diffusion.beta_end=1.0"),
    ],
)
def test_chain_setting_errors(settings, words):
    with pytest.raises(ConfigError, match=words):
        create_diffusion(**settings)


def test_respaced_chain_bridges_the_timesteps_left_out():
    full, respaced = create_diffusion(), create_diffusion("50")
    assert respaced.num_timesteps == 50
    np.testing.assert_allclose(np.cumprod(1 - respaced.betas), full.alphas_cumprod[respaced.timestep_map], rtol=1e-12)
    assert np.all(respaced.betas[1:] > full.betas[respaced.timestep_map][1:])


def test_tables_keep_float32_precision_where_alpha_bar_is_near_one():
    exact = np.sqrt(1 - linear_alphas_cumprod(1000, 1e-4, 0.02))
    ours = np.asarray(gather(exact, jnp.arange(1000))).ravel()
    np.testing.assert_allclose(ours, exact, rtol=1e-7)
    in_float32 = np.sqrt(1 - linear_alphas_cumprod(1000, 1e-4, 0.02).astype(np.float32))
    assert np.max(np.abs(in_float32 / exact - 1)) > 1e-5


@pytest.mark.parametrize("index", [7, jnp.array(7), jnp.array([7, 7, 7])])
def test_denoiser_is_fed_original_timesteps(index):
    seen = []

    def denoise(x, timesteps):
        seen.append(timesteps)
        return jnp.concatenate([x, 2 * x], axis=-1).astype(jnp.bfloat16)

    chain = create_diffusion("250")
    eps, v = chain.predict_noise(denoise, jnp.ones((3, 2, 4, 1)), index)
    assert seen[0].dtype == jnp.int32
    np.testing.assert_array_equal(seen[0], [28, 28, 28])
    assert eps.dtype == v.dtype == jnp.float32
    np.testing.assert_array_equal(eps, np.ones((3, 2, 4, 1)))
    np.testing.assert_array_equal(v, 2 * np.ones((3, 2, 4, 1)))


def test_denoiser_without_a_variance_is_an_error_before_anything_compiles():
    x = jnp.ones((2, 4, 6, 3))
    with pytest.raises(ValueError, match=r"\(2, 4, 6, 3\).*must return \(2, 4, 6, 6\)"):
        jax.eval_shape(lambda x: create_diffusion().predict_noise(lambda x, timesteps: x, x, 0), x)
