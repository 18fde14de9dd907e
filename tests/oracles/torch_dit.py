"""DiT, NoPE and LEDiT in plain PyTorch: what the JAX model is held against, and the benchmark's peer.

Images are [B, C, H, W] with any H and W. State-dict names are those of facebookresearch/DiT, plus `conv` and
`conv_norm`, which DiT does not have.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from oracles.torch_scans import block_kinds, scan_mask
from torch import Tensor, nn

from ledit_jax.config import ModelConfig


def sincos_table(height: int, width: int, dim: int) -> Tensor:
    """float32 [1, T, dim]: the first half of the channels holds sin and cos of the column, the second of the row."""
    rows, cols = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    omega = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    halves = [position.reshape(-1, 1).double() * omega for position in (cols, rows)]
    return torch.cat([f(angle) for angle in halves for f in (torch.sin, torch.cos)], dim=1).float()[None]


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x [B, T, D], shift and scale [B, D]."""
    return x * (1 + scale[:, None]) + shift[:, None]


class TimestepEmbedder(nn.Module):
    """Integer timesteps [B] -> [B, D] through 256 sinusoids, cosines first."""

    def __init__(self, width: int, max_period: float, frequency_shift: float):
        super().__init__()
        self.max_period, self.frequency_shift = max_period, frequency_shift
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

    def sinusoids(self, t: Tensor) -> Tensor:
        """[B] -> [B, 256] in the type of the weights."""
        dtype = self.mlp[0].weight.dtype
        exponent = torch.arange(128, dtype=dtype) / (128 - self.frequency_shift)
        angle = t[:, None].to(dtype) * torch.exp(-math.log(self.max_period) * exponent)
        return torch.cat([angle.cos(), angle.sin()], dim=1)

    def forward(self, t: Tensor) -> Tensor:
        return self.mlp(self.sinusoids(t))


class LabelEmbedder(nn.Module):
    """Labels [B], num_classes being the null one, -> [B, D]."""

    def __init__(self, num_classes: int, width: int):
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, y: Tensor) -> Tensor:
        return self.embedding_table(y)


class PatchEmbed(nn.Module):
    """[B, C, H, W] -> [B, D, H / p, W / p]."""

    def __init__(self, patch_size: int, in_channels: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Attention(nn.Module):
    """Multi-head attention over [B, T, D]; `mask` is None, [T, T] or [B, 1, T, T] with True where attended."""

    def __init__(self, width: int, num_heads: int, fused: bool):
        super().__init__()
        self.num_heads, self.fused = num_heads, fused
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None, logit_scale: float) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scale = logit_scale / math.sqrt(width // self.num_heads)
        if self.fused:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
        else:
            logits = torch.einsum("bnqk,bnsk->bnqs", q, k) * scale
            if mask is not None:
                logits = logits.masked_fill(~mask, float("-inf"))
            out = torch.einsum("bnqs,bnsk->bnqk", logits.softmax(dim=-1), v)
        return self.proj(out.transpose(1, 2).reshape(batch, tokens, width))


class Mlp(nn.Module):
    """Two Linears with GELU's tanh form between."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """One adaLN-Zero transformer block."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float, norm_eps: float, fused: bool):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps, elementwise_affine=False)
        self.attn = Attention(width, num_heads, fused)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor, mask: Tensor | None, logit_scale: float) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + gate1[:, None] * self.attn(modulate(self.norm1(x), shift1, scale1), mask, logit_scale)
        return x + gate2[:, None] * self.mlp(modulate(self.norm2(x), shift2, scale2))


class FinalLayer(nn.Module):
    """Norm, modulation and the output Linear: [B, T, D] -> [B, T, p * p * out_channels]."""

    def __init__(self, width: int, outputs: int, norm_eps: float):
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=norm_eps, elementwise_affine=False)
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class LEDiT(nn.Module):
    """LEDiT, and DiT and NoPE as settings of it; the arguments are the fields of `ledit_jax.config.ModelConfig`."""

    def __init__(
        self,
        depth: int = 4,
        width: int = 32,
        num_heads: int = 4,
        patch_size: int = 2,
        mlp_ratio: float = 4.0,
        num_classes: int = 10,
        position: str = "none",
        block_order: str = "sa_ca",
        scan: str = "d",
        conv: str = "dense",
        post_norm: bool = False,
        causal_from_timestep: int = 0,
        norm_eps: float = 1e-6,
        timestep_max_period: float = 10_000.0,
        timestep_frequency_shift: float = 0.0,
        in_channels: int = 4,
        grid: tuple[int, int] = (16, 16),
        fused: bool = False,
    ):
        super().__init__()
        self.patch_size, self.out_channels = patch_size, 2 * in_channels
        self.position, self.scan, self.causal_from_timestep = position, scan, causal_from_timestep
        self.kinds = block_kinds(block_order, depth)
        self.masks: dict[tuple[int, int], Tensor] = {}
        self.x_embedder = PatchEmbed(patch_size, in_channels, width)
        self.t_embedder = TimestepEmbedder(width, timestep_max_period, timestep_frequency_shift)
        self.y_embedder = LabelEmbedder(num_classes, width)
        if position == "sincos":
            self.pos_embed = nn.Parameter(sincos_table(*grid, width), requires_grad=False)
        if conv != "none":
            self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width if conv == "depthwise" else 1)
        if post_norm:
            self.conv_norm = nn.LayerNorm(width, eps=norm_eps)
        self.blocks = nn.ModuleList(Block(width, num_heads, mlp_ratio, norm_eps, fused) for _ in range(depth))
        self.final_layer = FinalLayer(width, patch_size**2 * self.out_channels, norm_eps)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, dilation: int = 1, logit_scale: float = 1.0) -> Tensor:
        """x [B, C, H, W], t and y [B] -> [B, 2C, H, W]."""
        z, c, (height, width) = self.embed(x, t, y, dilation)
        mask = self.causal_mask(t, height, width)
        for kind, block in zip(self.kinds, self.blocks, strict=True):
            z = block(z, c, mask if kind == "ca" else None, logit_scale)
        return self.unpatchify(self.final_layer(z, c), height, width)

    def embed(self, x: Tensor, t: Tensor, y: Tensor, dilation: int) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Tokens [B, T, D], conditioning [B, D] and the token grid."""
        z = self.x_embedder(x)
        height, width = z.shape[2:]
        if self.position == "sincos":
            z = z + sincos_table(height, width, z.shape[1]).transpose(1, 2).unflatten(2, (height, width))
        if hasattr(self, "conv"):
            z = F.conv2d(z, self.conv.weight, self.conv.bias, 1, dilation, dilation, self.conv.groups)
        z = z.flatten(2).transpose(1, 2)
        if hasattr(self, "conv_norm"):
            z = self.conv_norm(z)
        return z, self.t_embedder(t) + self.y_embedder(y), (height, width)

    def causal_mask(self, t: Tensor, height: int, width: int) -> Tensor:
        """[T, T], or [B, 1, T, T] where a timestep threshold lets each sample differ."""
        if (height, width) not in self.masks:
            self.masks[height, width] = scan_mask(self.scan, height, width)
        mask = self.masks[height, width]
        if self.causal_from_timestep == 0:
            return mask
        return mask | (t < self.causal_from_timestep)[:, None, None, None]

    def unpatchify(self, z: Tensor, height: int, width: int) -> Tensor:
        """[B, T, p * p * C] -> [B, C, H, W]."""
        p = self.patch_size
        z = z.reshape(-1, height, width, p, p, self.out_channels).permute(0, 5, 1, 3, 2, 4)
        return z.reshape(-1, self.out_channels, height * p, width * p)


def randomise_(module: nn.Module, seed: int) -> nn.Module:
    """Fills every trainable parameter with noise, so that no zero at initialisation hides an error."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        fan_in = parameter[0].numel() if parameter.ndim > 1 and "embedding_table" not in name else 4
        noise = torch.randn(parameter.shape, generator=generator) / math.sqrt(fan_in)
        parameter.data.copy_(1 + noise if name == "conv_norm.weight" else noise)
    return module


def torch_peer(config: ModelConfig, in_channels: int = 4, grid: tuple[int, int] = (16, 16), fused=False) -> LEDiT:
    """The oracle for a ModelConfig, with random parameters."""
    ours_alone = ("conv_init", "dtype", "residual_dtype", "matmul_precision", "scan_layers", "remat", "attention")
    ours_alone += ("network", "block", "qk_norm", "span_embed")
    fields = {k: v for k, v in dataclasses.asdict(config).items() if k not in ours_alone}
    return randomise_(LEDiT(**fields, in_channels=in_channels, grid=grid, fused=fused), seed=0)
