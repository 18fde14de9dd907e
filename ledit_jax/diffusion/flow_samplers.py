"""Samplers along an interpolant: Euler, Heun, two multistep ones, SiT's SDE and MeanFlow's jumps.

Coefficients are float64 NumPy tables, gathered as float32 at each network call.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Num

from ledit_jax.diffusion.interpolant import Interpolant, shift_times
from ledit_jax.diffusion.process import Denoiser, Images, Sampler, Step, step_noise
from ledit_jax.diffusion.samplers import Multistep, multistep_table
from ledit_jax.diffusion.schedule import gather

Estimate = Callable[[Denoiser, Images, Num[Array, " B"]], Images]
"""estimate(denoise, x, times): what a sampler steps by, a velocity or clean data."""


@dataclass(frozen=True, eq=False)
class FlowSampler(Multistep):
    """Every deterministic sampler of a flow is a table of coefficients, see `Multistep`.

    nodes: times of the network calls, descending. table: (a, b, c) for each of them. estimate_at: what it steps by.
    """

    nodes: Float[np.ndarray, " num_steps"]
    table: Float[np.ndarray, "3 num_steps"]
    estimate_at: Estimate

    @property
    def times(self) -> Float[np.ndarray, " num_steps"]:
        """Noise-times, descending; the two calls of a step of Heun's are at its two ends."""
        return self.nodes

    def estimate(self, denoise: Denoiser, x: Images, step: Step) -> Images:
        """A velocity or clean data, at the step's time."""
        return self.estimate_at(denoise, x, _times_at(self.nodes, step, len(x)))


def euler(num_steps: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and table of Euler's method over velocities, evenly spaced in time before the shift."""
    t = time_grid(num_steps, shift)
    h = np.diff(t)
    return t[:-1], np.stack([np.ones_like(h), h, np.zeros_like(h)])


def heun(num_steps: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Heun's method over velocities: two network calls for each interval.

    The first goes to the interval's end by Euler's method, the second corrects by half the change of velocity. With an
    odd number of calls the last interval has one, as in Karras et al. (arXiv 2206.00364, algorithm 1).
    """
    t = time_grid((num_steps + 1) // 2, shift)
    h = np.diff(t)
    nodes = np.stack([t[:-1], t[1:]], axis=1).reshape(-1)
    b = np.stack([h, h / 2], axis=1).reshape(-1)
    c = np.stack([np.zeros_like(h), -h / 2], axis=1).reshape(-1)
    return nodes[:num_steps], np.stack([np.ones_like(b), b, c])[:, :num_steps]


def ab2(num_steps: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """The two-step method of Adams and Bashforth over velocities, for intervals of any length; the first is Euler's.

    Intervals shrink towards data, t = (k / n)^1.5. Root mean square distance from the exact solution at 25 calls, for
    the mixture of the tests, along the linear path and gvp: 0.0037 and 0.0037; evenly spaced 0.0056 and 0.0106, dpmpp
    0.0094 and 0.0171, heun 0.0194 and 0.0289, euler 0.0311 and 0.0187.
    """
    t = shift_times(np.linspace(1.0, 0.0, num_steps + 1) ** 1.5, shift)
    h = np.diff(t)
    extrapolation = np.append(0.0, h[1:] / (2.0 * h[:-1]))
    return t[:-1], np.stack([np.ones_like(h), h * (1.0 + extrapolation), -h * extrapolation])


def dpmpp(num_steps: int, shift: float, path: Interpolant) -> tuple[np.ndarray, np.ndarray]:
    """DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2) over clean data, with the path's alpha and sigma."""
    t = time_grid(num_steps, shift)[:-1]
    alpha, sigma, _, _ = path.coefficients(t)
    return t, multistep_table(alpha, sigma)


def time_grid(num_intervals: int, shift: float) -> Float[np.ndarray, " nodes"]:
    """From noise, 1, to data, 0."""
    return shift_times(np.linspace(1.0, 0.0, num_intervals + 1), shift)


_DIFFUSIONS = {
    "sigma": lambda t, alpha, sigma, d_alpha, d_sigma: np.ones_like(t),
    "sbdm": lambda t, alpha, sigma, d_alpha, d_sigma: d_sigma - d_alpha / alpha * sigma,
    "increasing_decreasing": lambda t, alpha, sigma, d_alpha, d_sigma: np.sin(np.pi * t) ** 2 / sigma,
}
"""Diffusion coefficient w(t) over sigma(t), by name."""

_LAST_STEP = 0.04
"""SiT's: the last step goes from here to data without noise."""

_FIRST_TIME = {"sbdm": 1.0 - 1e-3}
"""SiT's, where the coefficient is infinite at pure noise."""


@dataclass(frozen=True, eq=False)
class FlowSDE(Sampler):
    """SiT's stochastic sampler (arXiv 2401.08740, eq. 4) by Euler-Maruyama; the last step adds no noise.

    dx = (v - w score) dt + sqrt(2 w) dW backwards in time, with the same marginals for every w(t) >= 0. diffusion:
    which w, "sigma" by default.
    """

    path: Interpolant
    count: int
    shift: float
    diffusion: str
    velocity: Estimate

    @property
    def times(self) -> Float[np.ndarray, " num_steps"]:
        """Noise-times: evenly from 1 to the last step's 0.04, before the shift."""
        first = _FIRST_TIME.get(self.diffusion, 1.0)
        t = np.linspace(first, _LAST_STEP, self.count) if self.count > 1 else np.array([first])
        return shift_times(t, self.shift)

    def step(self, denoise: Denoiser, state: Images, step: Step, keys: Key[Array, " B"] | None) -> Images:
        """One network call. Raises ValueError without keys."""
        nodes = self.times
        t = _times_at(nodes, step, len(state))
        velocity = self.velocity(denoise, state, t)
        h = np.append(nodes[:-1] - nodes[1:], nodes[-1])
        alpha, sigma, d_alpha, d_sigma = self.path.coefficients(nodes)
        # w times the score is minus the noise estimate times w / sigma, which is finite where the score is not.
        ratio = _DIFFUSIONS[self.diffusion](nodes, alpha, sigma, d_alpha, d_sigma)
        mean = state - gather(h, step) * (velocity + gather(ratio, step) * self.path.noise(state, t, velocity))
        spread = np.append(np.sqrt(2.0 * ratio * sigma * h)[:-1], 0.0)
        return mean + gather(spread, step) * step_noise(keys, step, state.shape[1:])


@dataclass(frozen=True, eq=False)
class MeanFlowSampler(Sampler):
    """Jumps by average velocities (MeanFlow, arXiv 2505.13447, eq. 10): one network call for each interval."""

    count: int
    shift: float
    average: Estimate
    """Of the velocity between two times, given as [B, 2]."""

    @property
    def times(self) -> Float[np.ndarray, " num_steps"]:
        """Noise-times at which jumps begin."""
        return time_grid(self.count, self.shift)[:-1]

    def step(self, denoise: Denoiser, state: Images, step: Step, keys: Key[Array, " B"] | None) -> Images:
        """From times[step] to the next one, or to data."""
        grid = time_grid(self.count, self.shift)
        ends = jnp.stack([_times_at(grid, step, len(state)), _times_at(grid[1:], step, len(state))], axis=1)
        return state + gather(np.diff(grid), step) * self.average(denoise, state, ends)


def _times_at(nodes: Float[np.ndarray, " n"], step: Step, batch_size: int) -> Float[Array, " B"]:
    return jnp.broadcast_to(jnp.asarray(nodes, jnp.float32)[step], (batch_size,))
