"""How far each sampler of a flow ends from the exact solution, by network calls; a minute on a CPU.

  python benchmarks/flow_samplers.py

Data is a mixture of twelve Gaussians in 32 dimensions whose deviations fall as 1/k, as images' do, so that velocity and
solution are known. Guided, each sample is of one of two classes of six Gaussians. Writes
benchmarks/results/flow_samplers.json and prints the tables of docs/flow.md.
"""

import functools
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from oracles.exact_flow import distance  # noqa: E402

from benchmarks.report import Report  # noqa: E402
from ledit_jax.diffusion import FlowProcess  # noqa: E402

CALLS = (4, 8, 16, 25, 50)
SAMPLERS = ("euler", "heun", "ab2", "dpmpp")


def main() -> None:
    report = Report(ROOT / "benchmarks" / "results" / "flow_samplers.json", ("jax", "numpy"))
    for scale in (1, 4):
        head = "| path | sampler |" if scale == 1 else f"\n| path, guided by {scale} | sampler |"
        print(head + "".join(f" {n} |" for n in CALLS) + "\n|---|---|" + "---|" * len(CALLS))
        for path in ("linear", "gvp"):
            for name in SAMPLERS:
                key = f"{path} {name}" + (f" cfg {scale}" if scale != 1 else "")
                row = report.get(key, functools.partial(measure, path, name, scale))
                print(f"| {path} | `{name}` |" + "".join(f" {row[str(n)]:.4f} |" for n in CALLS))
    print("\n" + report.heading())


def measure(path: str, name: str, scale: float) -> dict[str, float]:
    """Distances by number of calls."""
    process = FlowProcess(path)
    return {str(n): round(float(distance(process.make_sampler(name, n), path, scale)), 4) for n in CALLS}


if __name__ == "__main__":
    main()
