"""What has to be right before benchmarks/gpu.py times anything: cuDNN's attention, and the sides beside each other."""

import jax
import numpy as np
from oracles.attention_numbers import value_and_gradients

from benchmarks import gpu_jax, gpu_torch
from benchmarks.gpu_cases import Case, make_config, make_inputs
from ledit_jax.ops.cudnn_attention import cudnn_attention
from ledit_jax.ops.dense_attention import reference_attention, xla_attention

GRIDS = ((16, 16), (24, 24), (5, 7))
"""256 tokens, 576 and, padded, 35."""
SCANS = ("none", "a", "b", "c", "d")
PREFIX = 77
_ATTENTION_TOLERANCE = 0.03
"""Of bfloat16 products, against the largest value."""
_OUTPUT_TOLERANCE = 0.05


def attention_numbers(dry_run: bool) -> dict[str, float]:
    """Largest difference of cuDNN's values and gradients, in bfloat16, from our float32 reference, over the largest
    value: of q, k, v by scan, at several grids and with a prefix of text. Raises ValueError beyond what rounding does.

    A dry run has plain XLA in cuDNN's place.
    """
    backend, worst = xla_attention if dry_run else cudnn_attention, {}
    for scan in SCANS[-1:] if dry_run else SCANS:
        cases = [(grid, 0) for grid in GRIDS] + [(GRIDS[0], PREFIX)]
        for grid, prefix in cases[2:3] if dry_run else cases:
            found = _differences(backend, grid, scan, prefix)
            for name, error in zip(("values", "gradients"), (found[0], max(found[1:])), strict=True):
                key = f"scan {scan}, {name}"
                worst[key] = max(worst.get(key, 0.0), error)
    if max(worst.values()) > _ATTENTION_TOLERANCE:
        raise ValueError(f"attention is wrong: {worst}")
    return worst


def _differences(backend, grid: tuple[int, int], scan: str, prefix: int) -> list[float]:
    """Of the values and of the gradients by q, k and v, with heads of 72 as in XL."""
    shape = (2, 4, 72)
    got = value_and_gradients(backend, "bfloat16", shape, grid, scan, num_prefix=prefix)
    want = value_and_gradients(reference_attention, "float32", shape, grid, scan, num_prefix=prefix)
    return [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(got, want, strict=True)]


def check_sides(dry_run: bool) -> dict[str, float | str]:
    """The device, its matrix-product rate, and the largest difference between the sides' outputs, shallow models.

    Raises ValueError if they differ by more than bfloat16 explains.
    """
    worst = 0.0
    for model in ("LEDiT-XL/2",) if dry_run else ("LEDiT-XL/2", "DiT-XL/2"):
        config = make_config(Case("train", model, 32 if dry_run else 256, 2), dry_run).replaced("model", depth=2)
        inputs = make_inputs(config, 2)
        peer, results = gpu_torch.outputs(config, inputs, "cpu" if dry_run else "cuda")
        ours = gpu_jax.output(config, peer, inputs)
        worst = max(worst, *(float(np.abs(ours - a).max() / np.abs(a).max()) for a in results.values()))
    if worst > _OUTPUT_TOLERANCE:
        raise ValueError(f"outputs differ by {worst:.3f} of their largest value: nothing is timed")
    rate = gpu_jax.matmul_rate(*((64, 2) if dry_run else (8192, 20)))
    return {"device": jax.devices()[0].device_kind, "matmul_rate": rate, "difference": worst}
