"""The page docs/gpu.md: a row for every figure that benchmarks/gpu.py measures, marked as waiting until it is there."""

import math
from collections.abc import Sequence

from benchmarks.gpu_cases import MEMORY, SAMPLING, SIDES, TRAINING, Case
from ledit_jax.evaluation.tables import markdown
from ledit_jax.flops import PEAK_BF16_FLOPS

WAITING = "waiting"
_GOAL_RATIO, _GOAL_MFU = 1.2, 0.55
_GROUPS = {"Training": TRAINING, "Sampling": SAMPLING, "Memory at 4,096 and 16,384 tokens": MEMORY}
_HEAD = """# On a GPU

{state}

- Goal: LEDiT-XL/2 trains at least {ratio} times as fast as compiled PyTorch in the same run. {ratio_found}.
- Goal: it trains at {mfu:.0%} MFU or more. {mfu_found}.

```sh
make bench-gpu                        # under GPU_PYTHON, by default python3, which has jax[cuda12] and PyTorch
python benchmarks/gpu.py --page       # writes this page from benchmarks/results/gpu.json, by itself
```

The first command needs one NVIDIA GPU and no network. It works in pieces of under eight minutes, keeps each figure in
`benchmarks/results/gpu.json` as soon as it is there, and goes on when it is started again. Until then a row says
{waiting}.

- The peers are the LEDiT of our tests in PyTorch, compiled by block with Inductor, with scaled dot-product attention
  and the scan as a dense mask, or with FlexAttention and a block mask. Products are bfloat16; weights are float32 in
  training and bfloat16 in sampling.
- Before anything is timed, a shallow model must give the same outputs on all sides, and cuDNN's attention the values
  and gradients of our reference.
- Training is a whole optimiser step with EMA, at the largest batch up to 256 that every side has memory for. Ours
  recomputes what lies between the products (`model.remat=dots`) where the row does not say otherwise.
- Sampling is every step of the sampler, guided by 4, without the autoencoder. `ab2` is a flow's. PyTorch's sides call
  the network as often, with an update of the same cost.
- MFU is the model's own FLOPs against the data sheet's bfloat16 peak. A ratio is of the times of a step, above 1 where
  ours is faster.
"""


def result_name(case: Case, side: str, batch: int) -> str:
    """Under which a figure is kept."""
    return f"{case.name} batch {batch} {side}"


def page(results: dict, cases: tuple[Case, ...]) -> str:
    """The page in Markdown, from what of these cases is measured."""
    rows = {case: _rows(case, results) for case in cases}
    training, peak = rows.get(TRAINING[0], {}), PEAK_BF16_FLOPS.get(results.get("sides", {}).get("device"))
    ours = training.get("jax", {})
    best = min((row["step"] for side, row in training.items() if side != "jax" and "step" in row), default=math.nan)
    ratio, mfu = best / ours.get("step", math.nan), _rate(ours) / (peak or math.nan)
    count = sum("step" in row for sides in rows.values() for row in sides.values())
    total = sum(len(case.sides) for case in cases)
    text = _HEAD.format(
        state=f"{count} of {total} rows are measured." if count else "No GPU was there yet: nothing here is measured.",
        ratio=_GOAL_RATIO,
        mfu=_GOAL_MFU,
        ratio_found=WAITING.capitalize() if math.isnan(ratio) else f"Found: {ratio:.2f}",
        mfu_found=WAITING.capitalize() if math.isnan(mfu) else f"Found: {mfu:.0%}",
        waiting=WAITING,
    )
    parts = [text, "## Correctness\n", _checks(results)]
    for title, group in _GROUPS.items():
        chosen = [case for case in cases if case in group]
        parts += [f"\n## {title}\n", _table(chosen, rows, peak)] if chosen else []
    if not set(cases) <= {case for group in _GROUPS.values() for case in group}:
        parts += ["\n## Dry run\n", _table(cases, rows, peak)]
    return "\n".join(parts) + f"\n\n{_machine(results)}\n"


def _rows(case: Case, results: dict) -> dict[str, dict]:
    """By side what was found, at the smallest batch that was tried."""
    batch = case.batch
    while batch > 1 and any(result_name(case, side, batch // 2) in results for side in case.sides):
        batch //= 2
    return {side: results.get(result_name(case, side, batch), {}) for side in case.sides}


def _rate(row: dict) -> float:
    return row["flops"] / row["step"] if "step" in row else math.nan


def _checks(results: dict) -> str:
    """Differences of cuDNN's attention, and of the sides' outputs."""
    attention, sides = results.get("attention", {}), results.get("sides", {})
    parts = [f"scan {scan}, {what}" for scan in ("none", *"abcd") for what in ("values", "gradients")]
    lines = [[f"cuDNN attention, {part}", _number(attention, part, ".4f")] for part in parts]
    lines.append(["outputs of all sides, shallow LEDiT-XL/2 and DiT-XL/2", _number(sides, "difference", ".4f")])
    lines.append(["bfloat16 products of 8192, TFLOP/s", _number(sides, "matmul_rate", ".0f", 1e-12)])
    return markdown(["what", "largest difference, of the largest value"], lines)


def _number(found: dict, name: str, form: str, scale: float = 1.0) -> str:
    return format(scale * found[name], form) if name in found else found.get("error", WAITING)


def _table(cases: Sequence[Case], rows: dict, peak: float | None) -> str:
    lines = [_line(case, side, rows[case], peak) for case in cases for side in case.sides]
    header = ["what", "side", "batch", "images/s", "step, ms", "MFU", "peak, GB", "first step, s", "ours is"]
    return markdown(header, lines)


def _line(case: Case, side: str, rows: dict[str, dict], peak: float | None) -> list[str]:
    row, head = rows[side], [case.name, SIDES[side]]
    if "step" not in row:
        return [*head, "", row.get("error", WAITING), "", "", "", "", ""]
    seconds = row["step"] if case.is_training else row["run"]
    mfu = f"{_rate(row) / peak:.1%}" if peak else "no known peak"
    ours = rows.get("jax", {}).get("step", math.nan)
    faster = "" if side == "jax" or math.isnan(ours) else f"{row['step'] / ours:.2f}x as fast"
    rate, step = f"{row['batch'] / seconds:.2f}", f"{1e3 * row['step']:.1f}"
    return [*head, str(row["batch"]), rate, step, mfu, f"{row['memory'] / 1e9:.1f}", f"{row['first']:.1f}", faster]


def _machine(results: dict) -> str:
    if "sides" not in results or "device" not in results["sides"]:
        return f"Device and versions: {WAITING}."
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return f"{results['sides']['device']}, {results['date']}, {versions}."
