"""Compiles LEDiT-XL/2's training step for TPU slices with no TPU present, and prints what it needs as Markdown tables.

  python benchmarks/compile_only.py --rows=runs/compile_only.jsonl

Each program is compiled by `train.py --compile_only` in a process of its own, which takes minutes. Rows that the file
has already are not compiled again, so that the same command goes on after an interruption. docs/compile_only.md says
how to read them.
"""

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.compile_configs import compile_step  # noqa: E402
from ledit_jax.compile_only.counts import KINDS  # noqa: E402
from ledit_jax.evaluation.tables import markdown  # noqa: E402

PAPER_BATCH = 256
CONFIGURED = {256: "none", 512: "dots"}
SLICES = ("v5e:4x4", "v5e:16x16", "v5p:4x4x4", "v6e:16x16")
# As many images on every chip, on 16 to 1,024 chips.
GROWTH, IMAGES_PER_CHIP = {"v5p:2x2x4": 16, "v5p:4x4x4": 64, "v5p:4x8x8": 256, "v5p:8x8x16": 1024}, 16


def cases() -> list[tuple[str, int, str, int]]:
    """(slice, image size, remat, global batch) of every program; an empty remat is the config's own."""
    remat = [("v5e:4x4", 256, policy, PAPER_BATCH) for policy in ("", "dots", "full")]
    remat += [("v5e:4x4", 512, policy, PAPER_BATCH) for policy in ("", "full", "none")]
    table = [(name, size, "", PAPER_BATCH) for size in (256, 512) for name in SLICES]
    growth = [(name, 256, "", chips * IMAGES_PER_CHIP) for name, chips in GROWTH.items()]
    return remat + table + growth


def compile_case(name: str, size: int, remat: str, batch: int) -> dict:
    """The report of one program; errors as `compile_step`."""
    overrides = [f"train.batch_size={batch}"] + ([f"model.remat={remat}"] if remat else [])
    return compile_step(f"imagenet{size}.py:LEDiT-XL/2", name, *overrides)


def print_tables(rows: dict[tuple, dict]) -> None:
    """A table each for the policies, the slices and the growth with the number of chips."""
    policies, slices, growth = [], [], []
    for (name, size, remat, batch), row in rows.items():
        compiled = f"{row['compiled_flops'] / 1e12:.2f}" if row["memory"] else "-"
        if name == "v5e:4x4":
            policy = remat or f"{CONFIGURED[size]} (config)"
            compile_time = f"{row['compile_seconds']:.0f} s"
            policies.append([str(size), policy, *_memory(row), compiled, compile_time, _fits(row)])
        if name in SLICES and batch == PAPER_BATCH and not remat:
            at_peak = f"{row['milliseconds_at_peak']:.1f}"
            sent = _gigabytes(row["sent_bytes"])
            slices.append([str(size), name, _mesh(row), *_memory(row), compiled, at_peak, sent, _fits(row)])
        if name in GROWTH and size == 256 and batch == IMAGES_PER_CHIP * row["topology"]["chips"]:
            kinds = [_gigabytes(row["collectives"][kind]["sent_bytes"]) for kind in KINDS]
            chips = str(row["topology"]["chips"])
            growth.append([chips, name, _mesh(row), _memory(row)[0], *kinds, _gigabytes(row["sent_bytes"])])
    memory = ["HBM / chip", "of it temporaries"]
    print(markdown(["size", "policy", *memory, "TFLOPs / chip", "compiled in", "fits"], policies), end="\n\n")
    header = ["size", "slice", "mesh", *memory, "TFLOPs / chip", "ms at peak", "sent / chip", "fits"]
    print(markdown(header, slices), end="\n\n")
    print(markdown(["chips", "slice", "mesh", "HBM / chip", *KINDS, "sent / chip"], growth))


def _memory(row: dict) -> list[str]:
    temporaries = f"{row['memory']['temporaries'] / 2**30:.2f} GiB" if row["memory"] else "-"
    return [f"{row['needed_bytes'] / 2**30:.2f} of {row['capacity_bytes'] / 2**30:.2f} GiB", temporaries]


def _gigabytes(number: int) -> str:
    return f"{number / 1e9:.2f} GB"


def _mesh(row: dict) -> str:
    return " x ".join(f"{axis} {size}" for axis, size in row["mesh"].items() if size > 1)


def _fits(row: dict) -> str:
    return "yes" if row["fits"] else "no"


def main() -> None:
    """Parses flags, compiles what is missing, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, metavar="PATH", help="JSON lines, one for each program")
    args = parser.parse_args()
    rows = {}
    if args.rows.exists():
        rows = {tuple(row["case"]): row for row in map(json.loads, args.rows.read_text().splitlines())}
    args.rows.parent.mkdir(parents=True, exist_ok=True)
    for case in tqdm(cases(), unit="program"):
        if case not in rows:
            rows[case] = compile_case(*case) | {"case": case}
            with args.rows.open("a") as file:
                file.write(json.dumps(rows[case]) + "\n")
    print_tables({case: rows[case] for case in dict.fromkeys(cases())})


if __name__ == "__main__":
    main()
