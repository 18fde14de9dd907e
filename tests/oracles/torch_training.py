"""Training as facebookresearch/DiT does it, in float64 PyTorch: the loss from its equations, AdamW, clipping, EMA."""

import copy
import dataclasses
import math

import numpy as np
import torch
from oracles import torch_dit
from torch import Tensor

from ledit_jax.config import TrainConfig

BETAS = np.linspace(1e-4, 0.02, 1000)
ALPHA_BAR = np.cumprod(1 - BETAS)


def dit_losses(x0: Tensor, t: Tensor, noise: Tensor, eps: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(mse, vb) [B] of images [B, ...] at timesteps t [B], sample by sample; no gradient of vb reaches eps."""
    each = [_one_sample(*args) for args in zip(x0, t.long().tolist(), noise, eps, v, strict=True)]
    return tuple(torch.stack(values) for values in zip(*each, strict=True))


def noised(x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """x_t of the forward process."""
    alpha_bar = torch.from_numpy(ALPHA_BAR)[t].reshape(-1, *[1] * (x0.ndim - 1))
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise


def _one_sample(x0: Tensor, t: int, noise: Tensor, eps: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    alpha_bar, previous = ALPHA_BAR[t], ALPHA_BAR[t - 1] if t else 1.0
    x = math.sqrt(alpha_bar) * x0 + math.sqrt(1 - alpha_bar) * noise
    xstart = (x - math.sqrt(1 - alpha_bar) * eps.detach()) / math.sqrt(alpha_bar)
    c0, cx = math.sqrt(previous) * BETAS[t], math.sqrt(1 - BETAS[t]) * (1 - previous)
    mean, true_mean = ((c0 * start + cx * x) / (1 - alpha_bar) for start in (xstart, x0))
    at = max(t, 1)
    true_log_variance = math.log(BETAS[at] * (1 - ALPHA_BAR[at - 1]) / (1 - ALPHA_BAR[at]))
    fraction = (v + 1) / 2
    log_variance = fraction * math.log(BETAS[t]) + (1 - fraction) * true_log_variance
    if t:
        log_ratio = true_log_variance - log_variance
        nats = 0.5 * (log_ratio.exp() - 1 - log_ratio + (true_mean - mean) ** 2 / log_variance.exp())
    else:
        scale = torch.exp(0.5 * log_variance)
        lower, upper = (_normal_cdf_by_tanh((x0 - mean + edge) / scale) for edge in (-1 / 255, 1 / 255))
        lower, upper = torch.where(x0 < -0.999, 0, lower), torch.where(x0 > 0.999, 1, upper)
        nats = -torch.log((upper - lower).clamp(min=1e-12))
    return ((noise - eps) ** 2).mean(), nats.mean() / math.log(2)


def _normal_cdf_by_tanh(z: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


@dataclasses.dataclass
class Losses:
    """What a step reports, before its update."""

    loss: float
    mse: float
    vb: float
    grad_norm: float


class TorchTraining:
    """A network with its optimiser and moving average, all in float64."""

    def __init__(self, network: torch_dit.LEDiT, config: TrainConfig):
        self.network, self.config = network.double(), config
        self.ema = copy.deepcopy(self.network)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), betas=(0.9, 0.999), eps=1e-8, weight_decay=config.weight_decay
        )

    def step(self, x0, labels, t, noise, learning_rate: float, dilation: int) -> Losses:
        """One update from NCHW arrays; `labels` are those the network sees, the dropped ones replaced already."""
        x0, noise = (torch.from_numpy(np.asarray(a, np.float64)) for a in (x0, noise))
        t, labels = (torch.from_numpy(np.array(a, np.int64)) for a in (t, labels))
        eps, v = self.network(noised(x0, t, noise), t, labels, dilation=dilation).chunk(2, dim=1)
        mse, vb = (values.mean() for values in dit_losses(x0, t, noise, eps, v))
        self.optimizer.zero_grad()
        (mse + vb).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.grad_clip or math.inf)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        with torch.no_grad():
            for average, parameter in zip(self.ema.parameters(), self.network.parameters(), strict=True):
                average.lerp_(parameter, 1 - self.config.ema_decay)
        return Losses((mse + vb).item(), mse.item(), vb.item(), norm.item())
