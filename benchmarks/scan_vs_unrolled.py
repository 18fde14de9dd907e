"""Compiles LEDiT-XL/2's training step with its layers scanned and unrolled: time to trace and compile, size of the HLO.

  python benchmarks/scan_vs_unrolled.py [--compile_only=v5e:1x1] [--family=LEDiT-XL/2]

For one device of this machine, or for a TPU slice that is not there. Each way in a process of its own. Nothing is run:
what is compared is how long a run waits for its first step.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

CHILD = """
import dataclasses, json, sys, time
begin = time.perf_counter()
import jax
from configs import imagenet256
from ledit_jax.compile_only.topology import describe_devices, parse_topology
from ledit_jax.config import Config, MeshConfig
from ledit_jax.parallel.mesh import make_mesh
from ledit_jax.training.program import TrainProgram
family, topology, scan, batch = sys.argv[1], sys.argv[2], sys.argv[3] == "scan", int(sys.argv[4])
config = Config.from_dict(imagenet256.get_config(family).to_dict())
model, train = dataclasses.replace(config.model, scan_layers=scan), dataclasses.replace(config.train, batch_size=batch)
config = dataclasses.replace(config, model=model, train=train, mesh=MeshConfig())
devices = describe_devices(parse_topology(topology)) if topology else jax.devices()[:1]
program = TrainProgram(config, make_mesh(config.mesh, devices))
started = time.perf_counter()
lowered = program.step.lower(*program.abstract_arguments(), 1)
traced = time.perf_counter()
text = lowered.as_text()
compile_begin = time.perf_counter()
compiled = lowered.compile()
done = time.perf_counter()
print(json.dumps({
    "start": started - begin, "trace": traced - started, "compile": done - compile_begin,
    "stablehlo_lines": text.count("\\n"), "hlo_lines": compiled.as_text().count("\\n"),
}))
"""


def compile_one(family: str, topology: str, way: str, batch: int) -> dict[str, float]:
    """Seconds and lines of one way, "scan" or "unrolled"."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "JAX_ENABLE_COMPILATION_CACHE": "false",
    }
    command = [sys.executable, "-c", CHILD, family, topology, way, str(batch)]
    result = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    """Parses flags, compiles both ways, prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="LEDiT-XL/2", help="FAMILY-SIZE/PATCH (default: LEDiT-XL/2)")
    parser.add_argument("--compile_only", default="", metavar="SLICE", help="a TPU slice (default: this machine's CPU)")
    parser.add_argument("--batch", type=int, default=16, help="global batch (default: 16)")
    args = parser.parse_args()
    rows = {}
    for way in ("scan", "unrolled"):
        print(f"compiling {way}: minutes for XL/2", file=sys.stderr, flush=True)
        rows[way] = compile_one(args.family, args.compile_only, way, args.batch)
    print(f"{args.family}, batch {args.batch}, {args.compile_only or 'CPU'}\n")
    print("| | scan | unrolled | ratio |\n|---|---|---|---|")
    names = {"start": "start, s", "trace": "trace, s", "compile": "compile, s"}
    names |= {"stablehlo_lines": "HLO before, lines", "hlo_lines": "HLO compiled, lines"}
    for key, name in names.items():
        scan, unrolled = rows["scan"][key], rows["unrolled"][key]
        digits = 0 if key.endswith("lines") else 1
        print(f"| {name} | {scan:,.{digits}f} | {unrolled:,.{digits}f} | {unrolled / scan:.1f} |")


if __name__ == "__main__":
    main()
