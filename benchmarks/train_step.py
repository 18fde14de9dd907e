"""Times the network part of a training step, ours (JAX) against a plain PyTorch one, on the same CPU cores.

Both sides get the same weights and inputs and must agree before anything is timed. The PyTorch side is eager, with
its fused attention kernel: `tests/oracles/torch_dit.py`. See benchmarks/README.md for results and how to read them.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import torch
from flax import nnx

# The peer lives with the tests and the experiment with the configs; neither is part of the installed package.
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from oracles import ledit_params, torch_dit  # noqa: E402

from configs import digits  # noqa: E402
from ledit_jax.config import Config, ModelConfig, model_preset  # noqa: E402

TOLERANCE = 1e-3
CASES = ("digits", "LEDiT-S/2")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def case_of(name: str) -> tuple[ModelConfig, tuple[int, int, int, int]]:
    """Model and input shape [B, H, W, C] of a case."""
    if name == "digits":
        config = Config.from_dict(digits.get_config("ledit").to_dict())
        return config.model, (config.train.batch_size, *config.latent_shape())
    # Unrolled, as in the digits config: on CPU a scan over layers trains slower.
    return model_preset(name, scan_layers=False), (4, 16, 16, 4)


def make_inputs(config: ModelConfig, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Noisy latents, a target for the output, timesteps and labels."""
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=shape).astype(np.float32),
        "target": rng.normal(size=(*shape[:3], 2 * shape[3])).astype(np.float32),
        "t": rng.integers(0, 1000, shape[0]),
        "y": rng.integers(0, config.num_classes + 1, shape[0]),
    }


def jax_side(peer: torch_dit.LEDiT, config: ModelConfig, inputs: dict[str, np.ndarray]) -> dict[str, Callable]:
    """{"forward": () -> output NHWC, "forward+backward": () -> gradients}; both return when the work is done."""
    graphdef, params = nnx.split(ledit_params.ledit_peer(peer, config, inputs["x"].shape[-1]), nnx.Param)
    x, target, t, y = (jax.device_put(inputs[name]) for name in ("x", "target", "t", "y"))

    @jax.jit
    def forward(params, x, t, y):
        return nnx.merge(graphdef, params)(x, t, y)

    @jax.jit
    def gradient(params, x, target, t, y):
        return jax.grad(lambda params: ((forward(params, x, t, y) - target) ** 2).mean())(params)

    return {
        "forward": lambda: jax.block_until_ready(forward(params, x, t, y)),
        "forward+backward": lambda: jax.block_until_ready(gradient(params, x, target, t, y)),
    }


def torch_side(peer: torch_dit.LEDiT, inputs: dict[str, np.ndarray]) -> dict[str, Callable]:
    """The same for PyTorch; the gradients are a dict by parameter name."""
    x, target = (torch.from_numpy(inputs[name]).permute(0, 3, 1, 2).contiguous() for name in ("x", "target"))
    t, y = torch.from_numpy(inputs["t"]), torch.from_numpy(inputs["y"])

    def forward():
        with torch.inference_mode():
            return peer(x, t, y).permute(0, 2, 3, 1)

    def gradient():
        peer.zero_grad(set_to_none=True)
        ((peer(x, t, y) - target) ** 2).mean().backward()
        return {name: p.grad for name, p in peer.named_parameters()}

    return {"forward": forward, "forward+backward": gradient}


def check_agreement(ours: dict[str, Callable], theirs: dict[str, Callable]) -> None:
    """Raises ValueError where outputs or any parameter's gradients differ by more than 1e-3 of their largest value."""
    grads = ours["forward+backward"]()
    want = ledit_params.to_ledit_tree(theirs["forward+backward"](), grads)
    pairs = {"output": (ours["forward"](), theirs["forward"]())}
    for (path, got), expected in zip(jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(want), strict=True):
        pairs[f"gradient of {jax.tree_util.keystr(path)}"] = got, expected
    for name, (got, expected) in pairs.items():
        got, expected = np.asarray(got), np.asarray(expected)
        error = np.abs(got - expected).max() / np.abs(expected).max()
        if not error < TOLERANCE:
            raise ValueError(f"{name} differs by {error:.1e} of its largest value, more than {TOLERANCE}: not timed")


def time_side_by_side(ours: Callable, theirs: Callable, repeats: int, clock: str) -> dict[str, float]:
    """Milliseconds (medians) of each, and the median ratio of neighbours in time, which a busy machine shifts less."""
    times, now = {"jax": [], "torch": []}, CLOCKS[clock]
    for i in range(repeats + 3):  # the first three warm up
        for name, run in (("jax", ours), ("torch", theirs)):
            start = now()
            run()
            if i >= 3:
                times[name].append(1e3 * (now() - start))
    ratios = [t / j for j, t in zip(times["jax"], times["torch"], strict=True)]
    return {
        "jax_ms": statistics.median(times["jax"]),
        "torch_ms": statistics.median(times["torch"]),
        "speedup": statistics.median(ratios),
    }


def run_case(name: str, repeats: int, clock: str) -> list[dict]:
    """One row for each of forward and forward+backward."""
    config, shape = case_of(name)
    peer = torch_dit.torch_peer(config, shape[-1], fused=True)
    inputs = make_inputs(config, shape)
    ours, theirs = jax_side(peer, config, inputs), torch_side(peer, inputs)
    check_agreement(ours, theirs)
    return [
        {"case": name, "input": "x".join(map(str, shape)), "pass": part}
        | time_side_by_side(ours[part], theirs[part], repeats, clock)
        for part in ours
    ]


def describe_machine(threads: int) -> dict[str, str | int]:
    """Processor, thread count and versions, for the head of the table."""
    info = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    versions = {"jax": jax.__version__, "torch": torch.__version__, "python": platform.python_version()}
    return {"device": models[0] if models else platform.processor(), "threads": threads} | versions


def main() -> None:
    """Parses flags, times, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="A speedup above 1 means ours is faster. Both sides use every core this process may run on; for fewer,\n"
        "start it under taskset, for example: taskset -c 0 python benchmarks/train_step.py --case=digits --clock=cpu",
    )
    parser.add_argument("--case", choices=CASES, action="append", help="what to time; may be repeated (default: all)")
    parser.add_argument("--repeats", type=int, default=20, help="timed rounds, at least 10 (default: 20)")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="wall time, or the processor time of all threads: for busy machines, and on one core, since threads that"
        " wait may count as busy (default: wall)",
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the machine and the rows there as well")
    args = parser.parse_args()
    if args.repeats < 10:
        parser.error(f"--repeats={args.repeats} is too few for a median to mean anything: use at least 10")

    jax.config.update("jax_platforms", "cpu")
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    machine = describe_machine(threads) | {"clock": args.clock}
    print("  ".join(f"{key}: {value}" for key, value in machine.items()))
    print(f"{'case':<12}{'input':<14}{'pass':<18}{'jax ms':>9}{'torch ms':>10}{'speedup':>9}")
    rows = []
    for name in args.case or CASES:
        for row in run_case(name, args.repeats, args.clock):
            rows.append(row)
            print("{case:<12}{input:<14}{pass:<18}{jax_ms:>9.1f}{torch_ms:>10.1f}{speedup:>8.2f}x".format(**row))
    if args.json:
        args.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
