"""How far each sampler of a flow ends from the exact solution, by network calls; a minute on a CPU.

  python benchmarks/flow_samplers.py

Data is a mixture of twelve Gaussians in 32 dimensions whose deviations fall as 1/k, as images' do, so that velocity and
solution are known. Writes benchmarks/results/flow_samplers.json and prints the table of docs/flow.md.
"""

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
    print("| path | sampler |" + "".join(f" {n} |" for n in CALLS) + "\n|---|---|" + "---|" * len(CALLS))
    for path in ("linear", "gvp"):
        for name in SAMPLERS:
            row = report.get(
                f"{path} {name}",
                lambda path=path, name=name: {
                    str(n): round(float(distance(FlowProcess(path).make_sampler(name, n), path)), 4) for n in CALLS
                },
            )
            print(f"| {path} | `{name}` |" + "".join(f" {row[str(n)]:.4f} |" for n in CALLS))
    print("\n" + report.heading())


if __name__ == "__main__":
    main()
