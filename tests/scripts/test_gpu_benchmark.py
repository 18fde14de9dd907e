"""benchmarks/gpu.py without a GPU: every program once on CPU, what it goes on with, and the page of what is waiting."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks import gpu, gpu_page
from benchmarks.gpu_cases import ORDER, Case
from benchmarks.report import Report
from ledit_jax.files import read_json

ROOT = Path(__file__).parents[2]
ABSENT = ("grain", "array_record", "ml_collections", "beartype", "diffusers", "sklearn", "scipy", "matplotlib")
PROGRAM = f"""
import contextlib, sys
sys.path[:0] = [".", "tests"]
sys.modules |= dict.fromkeys({ABSENT})
from benchmarks import gpu
with contextlib.suppress(SystemExit):
    gpu.main([])
for turn in range(2):
    print("turn", turn, file=sys.stderr)
    gpu.main(["--dry_run", *sys.argv[1:]])
"""


def test_dry_run_measures_every_kind_of_program_goes_on_and_needs_few_packages(tmp_path):
    """In a process of its own, since torch.compile cannot look into functions whose types are checked."""
    command = [sys.executable, "-c", PROGRAM, f"--json={tmp_path / 'gpu.json'}", f"--out={tmp_path / 'gpu.md'}"]
    environment = os.environ | {"PATH": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    refused, first, second = re.split(r"turn .\n", done.stderr)
    assert refused == "error: no NVIDIA GPU is here: use --dry_run to try the script on CPU\n"
    assert first.count("...\n") == 6 and not second, done.stderr
    page = (tmp_path / "gpu.md").read_text()
    rows = [line for line in page.splitlines() if re.match(r"\| (train|ab2|ddpm)", line)]
    assert len(rows) == 4 and all("no known peak" in row for row in rows), page
    written = read_json(tmp_path / "gpu.json")
    assert 0 < written["sides"]["difference"] < 0.05 and 0 < written["attention"]["scan d, gradients"] < 0.03
    assert all(row["flops"] > 1e6 and row["run"] >= row["step"] > 0 for row in written.values() if "step" in row)


def test_pieces_halve_the_batch_try_failures_last_and_stop_at_the_deadline(tmp_path):
    cases = (Case("train", "a", 256, 8, sides=("sdpa", "jax")), Case("ddpm", "a", 256, 8, 2, sides=("jax",)))
    asked = []

    def run(piece, seconds):
        asked.append(piece)
        if piece[-1] == "8" and piece[1] == "jax" and piece[0] == "0":
            return {"error": gpu.NO_MEMORY}
        return {"error": "no luck"} if asked.count(piece) == 1 and piece == ("0", "sdpa", "4") else {"step": 1.0}

    assert not gpu.Pieces(Report(tmp_path / "r.json", ()), cases, run, minutes=0).go_on() and not asked
    assert gpu.Pieces(Report(tmp_path / "r.json", ()), cases, run, minutes=1).go_on()
    training = [("0", "sdpa", "8"), ("0", "jax", "8"), ("0", "sdpa", "4"), ("0", "jax", "4")]
    assert asked == [("attention",), ("sides",), *training, ("1", "jax", "8"), ("0", "sdpa", "4")]
    assert gpu.Pieces(Report(tmp_path / "r.json", ()), cases, run, minutes=1).go_on() and len(asked) == 8


def test_the_page_is_that_of_the_results():
    """python benchmarks/gpu.py --page"""
    results = read_json(ROOT / "benchmarks/results/gpu.json")
    assert (ROOT / "docs/gpu.md").read_text() == gpu_page.page(results, ORDER)


def test_the_page_works_out_what_is_measured():
    row = {"batch": 128, "first": 60.0, "run": 0.0, "memory": 100e9, "flops": 989e12 * 0.3}
    results = {
        "sides": {"device": "NVIDIA H200", "difference": 0.01, "matmul_rate": 7.7e14},
        "train LEDiT-XL/2 at 256 batch 256 sdpa": {"error": gpu.NO_MEMORY},
        "train LEDiT-XL/2 at 256 batch 128 sdpa": row | {"step": 0.75},
        "train LEDiT-XL/2 at 256 batch 128 jax": row | {"step": 0.5},
        "date": "2026-11-22",
        "versions": {"jax": "1.0"},
    }
    page = gpu_page.page(json.loads(json.dumps(results)), ORDER)
    assert "times as fast as compiled PyTorch in the same run. Found: 1.50." in page
    assert "MFU or more. Found: 60%." in page and page.startswith("# On a GPU\n\n2 of ")
    line = next(line for line in page.splitlines() if "train LEDiT-XL/2 at 256 " in line and "SDPA" in line)
    cells = "128, 170.67, 750.0, 40.0%, 100.0, 60.0, 1.50x as fast"
    assert ", ".join(cell.strip() for cell in line.split("|")[3:-1]) == cells
    assert "NVIDIA H200, 2026-11-22, jax 1.0." in page and gpu_page.WAITING in page
