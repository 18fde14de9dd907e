"""Everything that waits for a GPU: cuDNN's numbers, and our training and sampling beside compiled PyTorch's.

  make bench-gpu                          all of it, on one NVIDIA GPU: about half an hour, in pieces
  python benchmarks/gpu.py --page         writes docs/gpu.md from what has been measured; needs no GPU
  python benchmarks/gpu.py --dry_run      the same code at a tiny size on CPU; its times mean nothing

Needed are jax[cuda12] or newer, flax, optax, orbax-checkpoint, jaxtyping, tokenizers, Pillow and PyTorch, which a
machine for either has. First cuDNN's attention must give our reference's values and gradients, and all sides must
compute the same on a shallow model. Then each case of benchmarks/gpu_cases.py is timed: training at the largest batch
up to 256 that fits every side, whole runs of the samplers, all in bfloat16 with float32 weights in training.

Each piece has a process of its own, so that peak memory is its own, takes less than eight minutes, and is written to
benchmarks/results/gpu.json as soon as it is done. After --minutes no other one begins: the same command goes on.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from benchmarks import gpu_cases, gpu_page  # noqa: E402
from benchmarks.gpu_cases import Case  # noqa: E402
from benchmarks.report import Report  # noqa: E402

NO_MEMORY = "out of memory"
CHECKS = ("attention", "sides")
PIECE_SECONDS = 460
"""A piece is stopped then."""


class Pieces:
    """What there is to measure, kept in a report, one piece at a time until a deadline."""

    def __init__(self, report: Report, cases: tuple[Case, ...], run: Callable[[tuple, float], dict], minutes: float):
        """run(arguments, seconds) measures a piece; the arguments are those of --piece."""
        self.report, self.cases, self.run = report, cases, run
        self.deadline = time.monotonic() + 60 * minutes

    def go_on(self) -> bool:
        """Measures what is missing, then once more what failed. False where the deadline stopped it.

        Raises SystemExit where a check fails: what computes something else is not timed.
        """
        for name in CHECKS:
            found = self._get(name, (name,), again=True)
            if found is None:
                return False
            if "error" in found:
                sys.exit(f"error: {name}: {found['error']}")
        return all(self._measure(case, again) for again in (False, True) for case in self.cases)

    def _measure(self, case: Case, again: bool) -> bool:
        """Every side of a case; training at half the batch as long as one of them runs out of memory."""
        batch = case.batch
        while batch:
            for side in case.sides:
                piece = (str(self.cases.index(case)), side, str(batch))
                found = self._get(gpu_page.result_name(case, side, batch), piece, again)
                if found is None:
                    return False
                if found.get("error") == NO_MEMORY and case.is_training and batch > 1:
                    batch //= 2
                    break
            else:
                break
        return True

    def _get(self, name: str, piece: tuple, again: bool) -> dict | None:
        """The result of that name, measured if it is missing, or if it failed and `again`; None after the deadline."""
        known = self.report.results.get(name)
        left = self.deadline - time.monotonic()
        if known is not None and not (again and known.get("error", NO_MEMORY) != NO_MEMORY):
            return known
        if left <= 0:
            return None
        return self.report.get(name, lambda: self.run(piece, min(left, PIECE_SECONDS)), final=(NO_MEMORY,))


def measure(piece: tuple[str, ...], cases: tuple[Case, ...], dry_run: bool) -> dict:
    """A check by its name, or (index of the case, side, batch)."""
    if piece[0] in CHECKS:
        from benchmarks import gpu_checks

        return {"attention": gpu_checks.attention_numbers, "sides": gpu_checks.check_sides}[piece[0]](dry_run)
    index, side, batch = piece
    return gpu_cases.measure(cases[int(index)], side, int(batch), dry_run)


def isolated(piece: tuple[str, ...], seconds: float) -> dict:
    """`measure` in a process of its own; {"error": one line} if it failed."""
    environment = os.environ | {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95", "TF_CPP_MIN_LOG_LEVEL": "2"}
    if piece[0] in CHECKS:
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # PyTorch is in the same process
    command = [sys.executable, __file__, "--piece", *piece]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {seconds:.0f} s"}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    text = done.stderr.lower()
    if "out of memory" in text or "resource_exhausted" in text:
        return {"error": NO_MEMORY}
    return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1][:300]}


def main(arguments: list[str] | None = None) -> None:
    """Measures what is missing, writes and prints the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry_run", action="store_true", help="tiny models on CPU, in this process")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    parser.add_argument("--minutes", type=float, default=8.0, help="start nothing after that (default: 8)")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/gpu.json", metavar="PATH")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/gpu.md", metavar="PATH", help="the page")
    parser.add_argument("--piece", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    cases = gpu_cases.DRY if args.dry_run else gpu_cases.ORDER
    if args.piece:
        print(json.dumps(measure(args.piece, cases, args.dry_run)))
        return
    report, is_done = Report(args.json, ("jax", "jaxlib", "torch", "triton")), True
    if not args.page:
        if not args.dry_run and shutil.which("nvidia-smi") is None:
            print("error: no NVIDIA GPU is here: use --dry_run to try the script on CPU", file=sys.stderr)
            sys.exit(2)
        run = (lambda piece, _: measure(piece, cases, True)) if args.dry_run else isolated
        is_done = Pieces(report, cases, run, args.minutes).go_on()
    args.out.write_text(gpu_page.page(report.results, cases))
    print(f"wrote {args.out}" + ("" if is_done else "; there is more to measure: start the same command again"))


if __name__ == "__main__":
    main()
