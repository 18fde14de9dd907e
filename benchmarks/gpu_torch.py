"""The PyTorch side of benchmarks/gpu.py: the tests' LEDiT made fast, with SDPA or FlexAttention, compiled by block."""

import functools
from collections.abc import Callable

import torch
from oracles import torch_dit
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from benchmarks.gpu_cases import Case
from ledit_jax.config import Config
from ledit_jax.ops.scan_masks import SCANS, scan_mask

FLEX_BLOCK = 128


class FlexAttention(torch_dit.Attention):
    """Attention whose `mask` is a BlockMask or None."""

    def forward(self, x, mask, logit_scale):
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scale = logit_scale * (width // self.num_heads) ** -0.5
        out = flex_attention(q, k, v, block_mask=mask, scale=scale)
        return self.proj(out.transpose(1, 2).reshape(batch, tokens, width))


class Peer(torch_dit.LEDiT):
    """The oracle with its tables computed once, as a user who cares for speed has them."""

    def __init__(self, *args, grid, **kwargs):
        super().__init__(*args, grid=grid, **kwargs)
        half = torch.arange(128, dtype=torch.float32)
        self.register_buffer("frequencies", 10_000.0 ** (-half / 128))
        if self.position == "sincos":
            table = torch_dit.sincos_table(*grid, self.pos_embed.shape[-1])
            self.register_buffer("positions", table.transpose(1, 2).unflatten(2, grid))

    def embed(self, x, t, y, dilation):
        z = self.x_embedder(x)
        if self.position == "sincos":
            z = z + self.positions
        if hasattr(self, "conv"):
            z = self.conv(z)
        angle = t[:, None].float() * self.frequencies
        c = self.t_embedder.mlp(torch.cat([angle.cos(), angle.sin()], dim=1)) + self.y_embedder(y)
        return z.flatten(2).transpose(1, 2), c, tuple(z.shape[2:])


def make_peer(config: Config, grid: tuple[int, int], attention: str, device: str) -> Peer:
    """A peer of `config` with random weights and the grid's mask on `device`; attention is "sdpa" or "flex"."""
    model = config.model
    names = ("depth", "width", "num_heads", "patch_size", "num_classes", "position", "block_order", "scan", "conv")
    fields = {name: getattr(model, name) for name in names}
    peer = torch_dit.randomise_(Peer(**fields, in_channels=config.in_channels, grid=grid, fused=True), seed=0)
    if attention == "flex":
        for block in peer.blocks:
            block.attn.__class__ = FlexAttention
        peer.masks[grid] = create_block_mask(
            _scan_rule(model.scan, grid[1]), None, None, *[grid[0] * grid[1]] * 2, device
        )
    else:
        peer.masks[grid] = torch.from_numpy(scan_mask(model.scan, *grid)).to(device)
    return peer.to(device)


def _scan_rule(scan: str, width: int) -> Callable:
    rule = SCANS[scan]
    return lambda batch, head, q, k: rule(q // width, q % width, k // width, k % width)


def compile_blocks(peer: Peer, backend: str) -> None:
    """Compiles one block for all, and the last layer: PyTorch's advice for stacks, and a fraction of the wait.

    Blocks that cannot share a program are an error: PyTorch would quietly leave them uncompiled. What was compiled
    before, for another model in this process, is forgotten and does not count.
    """
    torch._dynamo.reset()
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    for module in (*peer.blocks, peer.final_layer):
        module.compile(backend=backend)


def train_step(peer: Peer, inputs: dict, device: str) -> Callable[[], float]:
    """() -> loss, once the step is done: forward in bfloat16, backward, fused AdamW, EMA."""
    x, noise, t, y = (inputs[name] for name in ("x", "noise", "t", "y"))
    optimizer = torch.optim.AdamW(peer.parameters(), lr=1e-4, weight_decay=0.0, fused=device == "cuda")
    params = list(peer.parameters())
    ema = [p.detach().clone() for p in params]

    def run() -> float:
        with torch.autocast(device, torch.bfloat16):
            out = peer(x, t, y)
        eps, variance = out.float().chunk(2, dim=1)
        loss = ((eps - noise) ** 2).mean() + 1e-3 * (variance**2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(ema, params, 1e-4)
        return loss.item()

    return run


def sample_step(peer: Peer, inputs: dict, device: str) -> Callable[[], float]:
    """() -> a number of the result, once the step is done: one guided call on the doubled batch, one update.

    Each of the samplers costs that. Weights are bfloat16, as ours are in sampling.
    """
    x, t, y = (inputs[name] for name in ("x", "t", "y"))
    null = torch.full_like(y, peer.y_embedder.embedding_table.num_embeddings - 1)
    both_t, both_y = torch.cat([t, t]), torch.cat([y, null])
    for module in peer.children():
        module.to(torch.bfloat16)

    @torch.inference_mode()
    def run() -> float:
        with torch.autocast(device, torch.bfloat16):
            out = peer(torch.cat([x, x]), both_t, both_y)
        cond, null = out.float().chunk(2)
        eps = null[:, :3] + 4.0 * (cond[:, :3] - null[:, :3])
        eps = torch.cat([eps, cond[:, 3 : x.shape[1]]], dim=1)
        return (x - 0.1 * eps + 0.01 * torch.randn_like(x)).sum().item()

    return run


def make_step(config: Config, case: Case, inputs: dict, attention: str, dry_run: bool) -> tuple[Callable, Callable]:
    """(step, peak memory in bytes) of training or of a sampler; `inputs` are NumPy arrays, images NHWC."""
    device = "cpu" if dry_run else "cuda"
    torch.set_float32_matmul_precision("high")
    tensors = {name: torch.from_numpy(a).to(device) for name, a in inputs.items()}
    for name in ("x", "noise"):
        tensors[name] = tensors[name].permute(0, 3, 1, 2).contiguous()
    peer = make_peer(config, config.token_grid(), attention, device)
    if case.is_training or not dry_run:  # once is enough to see that it can be compiled
        compile_blocks(peer, "eager" if dry_run else "inductor")
    make = train_step if case.is_training else sample_step
    peak = (lambda: 0) if dry_run else torch.cuda.max_memory_allocated
    return make(peer, tensors, device), peak


def outputs(config: Config, inputs: dict, device: str) -> tuple[torch_dit.LEDiT, dict]:
    """A peer, and its output NHWC with each kind of attention, for the check that all sides compute the same."""
    x = torch.from_numpy(inputs["x"]).permute(0, 3, 1, 2).to(device)
    t, y = (torch.from_numpy(inputs[name]).to(device) for name in ("t", "y"))
    grid = x.shape[2] // config.model.patch_size, x.shape[3] // config.model.patch_size
    make = functools.partial(make_peer, config, grid, device=device)
    results, peer = {}, None
    for attention in ("sdpa", "flex"):
        peer = make(attention)
        if device != "cpu":  # where only the arithmetic is looked at
            compile_blocks(peer, "inductor")
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
            results[attention] = peer(x, t, y).permute(0, 2, 3, 1).float().cpu().numpy()
    return peer.cpu(), results
