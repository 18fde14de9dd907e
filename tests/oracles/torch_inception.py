"""The Inception network of 2015 in plain PyTorch functions over a state dict, for tests; written apart from ours.

Names and shapes are those of pt_inception-2015-12-05-6726825d.pth. Batch normalisation is not folded, and images are
resized by `grid_sample`.
"""

import torch
import torch.nn.functional as F

A = {"1x1": "64,1,1", "5x5_1": "48,1,1", "5x5_2": "64,5,5", "3x3dbl_1": "64,1,1", "3x3dbl_2": "96,3,3"}
A |= {"3x3dbl_3": "96,3,3"}
E = {"1x1": "320,1,1", "3x3_1": "384,1,1", "3x3_2a": "384,1,3", "3x3_2b": "384,3,1", "3x3dbl_1": "448,1,1"}
E |= {"3x3dbl_2": "384,3,3", "3x3dbl_3a": "384,1,3", "3x3dbl_3b": "384,3,1", "_pool": "192,1,1"}


def block_c(mid):
    wide = {"1x1": "192,1,1", "7x7_1": f"{mid},1,1", "7x7_2": f"{mid},1,7", "7x7_3": "192,7,1"}
    double = {f"7x7dbl_{i}": f"{mid},{k}" for i, k in enumerate(["1,1", "7,1", "1,7", "7,1"], start=1)}
    return wide | double | {"7x7dbl_5": "192,1,7", "_pool": "192,1,1"}


BLOCKS = {
    "5b": (192, A | {"_pool": "32,1,1"}),
    "5c": (256, A | {"_pool": "64,1,1"}),
    "5d": (288, A | {"_pool": "64,1,1"}),
    "6a": (288, {"3x3": "384,3,3", "3x3dbl_1": "64,1,1", "3x3dbl_2": "96,3,3", "3x3dbl_3": "96,3,3"}),
    "6b": (768, block_c(128)),
    "6c": (768, block_c(160)),
    "6d": (768, block_c(160)),
    "6e": (768, block_c(192)),
    "7a": (
        768,
        {"3x3_1": "192,1,1", "3x3_2": "320,3,3", "7x7x3_1": "192,1,1", "7x7x3_2": "192,1,7", "7x7x3_3": "192,7,1"}
        | {"7x7x3_4": "192,3,3"},
    ),
    "7b": (1280, E),
    "7c": (2048, E),
}
STEM = {
    "1a_3x3": (3, 32, 3),
    "2a_3x3": (32, 32, 3),
    "2b_3x3": (32, 64, 3),
    "3b_1x1": (64, 80, 1),
    "4a_3x3": (80, 192, 3),
}


def convolutions():
    """(module, shape [out, in, rows, columns]) of every convolution."""
    for name, (cin, cout, side) in STEM.items():
        yield f"Conv2d_{name}", (cout, cin, side, side)
    for block, (cin, branches) in BLOCKS.items():
        previous, trunk = cin, ""
        for branch, text in branches.items():
            stem, _, place = branch.partition("_")
            out, rows, columns = map(int, text.split(","))
            inner = previous if stem and stem == trunk and place not in ("", "1") else cin
            yield f"Mixed_{block}.branch{branch}", (out, inner, rows, columns)
            trunk = stem
            previous = previous if place.endswith("a") else out


def random_state(seed=0):
    """Random weights in the exact names and shapes, scaled so that signals neither die nor grow."""
    g = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in convolutions():
        fan_in = shape[1] * shape[2] * shape[3]
        state[f"{name}.conv.weight"] = torch.randn(shape, generator=g) * (2 / fan_in) ** 0.5
        width = shape[0]
        state[f"{name}.bn.weight"] = 1 + 0.2 * torch.rand(width, generator=g)
        state[f"{name}.bn.bias"] = 0.2 * torch.randn(width, generator=g)
        state[f"{name}.bn.running_mean"] = 0.1 * torch.randn(width, generator=g)
        state[f"{name}.bn.running_var"] = 0.7 + 0.5 * torch.rand(width, generator=g)
    state["fc.weight"] = torch.randn(1008, 2048, generator=g) * 0.01
    state["fc.bias"] = torch.randn(1008, generator=g)
    return state


def resize(x):
    """TensorFlow 1's bilinear resize to 299 x 299: place i of the output is i * side / 299 of the input."""
    height, width = x.shape[2:]
    rows, columns = (
        torch.arange(299) * torch.tensor(side / 299) for side in (height, width)
    )  # places are float32 there
    rows, columns = (2 * p.double().clamp(max=s - 1) / max(s - 1, 1) - 1 for p, s in ((rows, height), (columns, width)))
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
    grid = grid.expand(len(x), 299, 299, 2)
    return F.grid_sample(x.double(), grid, "bilinear", "border", align_corners=True).float()


def forward(state, images):
    """(pool_3 [B, 2048], the 1x1 branch of Mixed_6d [B, 192, 17, 17]) of images [B, 3, H, W] in 0 .. 255."""
    x = resize(images)
    x = (x - 128) / 128

    def unit(name, x, stride=1, padding=None):
        weight = state[f"{name}.conv.weight"]
        padding = [side // 2 for side in weight.shape[2:]] if padding is None else padding
        x = F.conv2d(x, weight, stride=stride, padding=padding)
        mean, var, scale, bias = (state[f"{name}.bn.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        return F.relu(F.batch_norm(x, mean, var, scale, bias, eps=1e-3))

    def chain(block, x, *branches, **last):
        for i, branch in enumerate(branches):
            x = unit(f"Mixed_{block}.branch{branch}", x, **(last if i == len(branches) - 1 else {}))
        return x

    def inner_mean(x):
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    def block_a(b, x):
        double = chain(b, x, "3x3dbl_1", "3x3dbl_2", "3x3dbl_3")
        return torch.cat(
            [chain(b, x, "1x1"), chain(b, x, "5x5_1", "5x5_2"), double, chain(b, inner_mean(x), "_pool")], 1
        )

    def block_c(b, x):
        wide = chain(b, x, *(f"7x7_{i}" for i in (1, 2, 3)))
        double = chain(b, x, *(f"7x7dbl_{i}" for i in (1, 2, 3, 4, 5)))
        return torch.cat([chain(b, x, "1x1"), wide, double, chain(b, inner_mean(x), "_pool")], 1)

    def block_e(b, x, pooled):
        one, two = chain(b, x, "3x3_1"), chain(b, x, "3x3dbl_1", "3x3dbl_2")
        parts = [
            chain(b, one, "3x3_2a"),
            chain(b, one, "3x3_2b"),
            chain(b, two, "3x3dbl_3a"),
            chain(b, two, "3x3dbl_3b"),
        ]
        return torch.cat([chain(b, x, "1x1"), *parts, chain(b, pooled, "_pool")], 1)

    x = unit("Conv2d_1a_3x3", x, 2, 0)
    x = unit("Conv2d_2b_3x3", unit("Conv2d_2a_3x3", x, 1, 0))
    x = F.max_pool2d(x, 3, 2)
    x = unit("Conv2d_4a_3x3", unit("Conv2d_3b_1x1", x), 1, 0)
    x = F.max_pool2d(x, 3, 2)
    for b in ("5b", "5c", "5d"):
        x = block_a(b, x)
    narrow = dict(stride=2, padding=0)
    double = chain("6a", x, "3x3dbl_1", "3x3dbl_2", "3x3dbl_3", **narrow)
    x = torch.cat([chain("6a", x, "3x3", **narrow), double, F.max_pool2d(x, 3, 2)], 1)
    for b in ("6b", "6c"):
        x = block_c(b, x)
    spatial = chain("6d", x, "1x1")
    x = block_c("6e", block_c("6d", x))
    wide = chain("7a", x, *(f"7x7x3_{i}" for i in (1, 2, 3, 4)), **narrow)
    x = torch.cat([chain("7a", x, "3x3_1", "3x3_2", **narrow), wide, F.max_pool2d(x, 3, 2)], 1)
    x = block_e("7b", x, inner_mean(x))
    x = block_e("7c", x, F.max_pool2d(x, 3, 1, 1))
    return x.mean((2, 3)), spatial
