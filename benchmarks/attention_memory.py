"""Memory of a denoising step at high resolution, with dense and with splash attention, on one TPU chip.

  python benchmarks/attention_memory.py                          LEDiT-XL/2, v5e and v6e, 256 to 16,384 tokens
  python benchmarks/attention_memory.py --model=LEDiT-S/2 --tokens=256 --tokens=1024 --chip=v5e      a quick look

The step is sample.py's own: bfloat16, scan d, 250 steps of DDPM, two images with guidance, so four in the network.
As with sample.py --compile_only it is compiled and not run: no TPU is needed, and every figure is the compiler's. Each
one is written to --json as soon as it is there; started again, the command goes on with what is missing.
"""

import argparse
import functools
import math
import sys
from pathlib import Path

import jax

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report import Report  # noqa: E402
from configs import imagenet256  # noqa: E402
from ledit_jax.compile_only.programs import report_denoising_step  # noqa: E402
from ledit_jax.config import Config  # noqa: E402
from ledit_jax.evaluation.tables import markdown  # noqa: E402

CHIPS = ("v5e", "v6e")
TOKENS = (256, 1024, 4096, 9216, 16384)
BACKENDS = {"xla": "dense", "splash": "splash"}
BATCH = 2


def compile_step(model: str, chip: str, num_tokens: int, backend: str, **fields) -> dict[str, float]:
    """GB that the step needs and that the chip has, GB of scratch memory if it fits, and seconds to compile.

    fields: of the model, in place of the preset's.
    """
    config = Config.from_dict(imagenet256.get_config(model).to_dict()).replaced("model", attention=backend, **fields)
    side = math.isqrt(num_tokens) * config.granularity
    report = report_denoising_step(config, f"{chip}:1x1", side, side, BATCH)
    found = {"needs": report.needed_bytes / 1e9, "has": report.capacity_bytes / 1e9, "seconds": report.compile_seconds}
    return found | ({"scratch": report.memory.temporaries / 1e9} if report.memory else {})


def table(rows: dict[tuple, dict[str, float]], model: str, chip: str, tokens: list[int]) -> str:
    """Markdown of a chip: tokens, image, and per backend what the step needs and its scratch memory."""
    has = next(row["has"] for key, row in rows.items() if key[0] == chip)
    lines = []
    for count in tokens:
        dense, splash = (rows[chip, count, backend] for backend in BACKENDS)
        side = math.isqrt(count) * 16
        ratio = f"{dense['needs'] / splash['needs']:.1f}x"
        lines.append([f"{count:,}", f"{side}x{side}", *(_needs(row) for row in (dense, splash)), ratio])
    head = ["tokens", "image", *(f"{name}: GB (scratch)" for name in BACKENDS.values()), "dense over splash"]
    return f"{model} on one {chip}, {has:.1f} GB\n\n{markdown(head, lines)}"


def _needs(row: dict[str, float]) -> str:
    return f"{row['needs']:.2f} ({row['scratch']:.2f})" if "scratch" in row else f"{row['needs']:.1f}, does not fit"


def growth(rows: dict[tuple, dict[str, float]], chip: str, tokens: list[int]) -> str:
    """How much scratch memory each thousand tokens adds with splash, between neighbours of the table."""
    scratch = [rows[chip, count, "splash"].get("scratch", math.nan) for count in tokens]
    slopes = [
        f"{1e6 * (scratch[i + 1] - scratch[i]) / (tokens[i + 1] - tokens[i]):.0f}" for i in range(len(tokens) - 1)
    ]
    return f"Splash, MB for each further 1,000 tokens, from row to row: {', '.join(slopes) or 'one row alone'}."


def main() -> None:
    """Compiles what is missing, prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="LEDiT-XL/2", help="a preset with patch size 2 (default: LEDiT-XL/2)")
    parser.add_argument("--chip", choices=CHIPS, action="append", help="may be repeated (default: both)")
    parser.add_argument(
        "--tokens", type=int, action="append", help=f"a square number; may be repeated (default: {TOKENS})"
    )
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/attention_memory.json", metavar="PATH")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    chips, tokens = args.chip or list(CHIPS), args.tokens or list(TOKENS)
    for count in tokens:
        if math.isqrt(count) ** 2 != count:
            parser.error(f"--tokens={count} is not a square: use {math.isqrt(count) ** 2}")
    report = Report(args.json, ("jax", "libtpu"))
    rows = {
        (chip, count, backend): report.get(
            f"{args.model} {chip} {count} {backend}", functools.partial(compile_step, args.model, chip, count, backend)
        )
        for chip in chips
        for count in tokens
        for backend in BACKENDS
    }
    for chip in chips:
        print(f"\n{table(rows, args.model, chip, tokens)}\n\n{growth(rows, chip, tokens)}")
    print(f"\n{report.heading()}")


if __name__ == "__main__":
    main()
