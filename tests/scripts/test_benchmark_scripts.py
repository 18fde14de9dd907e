"""The benchmark scripts, as small as they go: every side runs, and what is written can be resumed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import attention_memory, roofline
from benchmarks.report import Report
from ledit_jax.compile_only.topology import has_tpu_compiler
from ledit_jax.config import Config

ROOT = Path(__file__).parents[2]


def run(script, *arguments, **environment):
    return subprocess.run(
        [sys.executable, f"benchmarks/{script}", *arguments],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_gpu_benchmark_dry_run_measures_every_side_and_resumes(tmp_path):
    result = run("gpu.py", "--dry_run", f"--out={tmp_path}")
    assert result.returncode == 0, result.stderr
    table = (tmp_path / "gpu_dry_run.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith(("| train", "| sample"))]
    assert len(rows) == 6 and not any("not run" in row for row in rows), table
    failed = [row for row in rows if "%" not in row]
    assert len(failed) == 1 and "FlexAttention trains on GPUs alone" in failed[0], table
    written = json.loads((tmp_path / "gpu_dry_run.json").read_text())
    assert written["check"]["difference"] < 0.05
    assert len([name for name in written if name.endswith(("jax", "sdpa", "flex"))]) == 6

    again = run("gpu.py", "--dry_run", f"--out={tmp_path}")
    assert again.stderr.count("...") == 1 and (tmp_path / "gpu_dry_run.md").read_text() == table


def test_gpu_benchmark_without_a_gpu_says_so():
    result = run("gpu.py", PATH="")
    assert result.returncode == 2
    assert result.stderr == "error: no NVIDIA GPU is here: use --dry_run to try the script on CPU\n"


def test_report_keeps_results_and_tries_failures_again(tmp_path):
    report = Report(tmp_path / "r.json", ("jax",))
    assert report.get("a", lambda: {"x": 1}) == {"x": 1}
    report.get("b", lambda: {"error": "no luck"})
    report.get("c", lambda: {"error": "out of memory"})
    report = Report(tmp_path / "r.json", ("jax",))
    assert report.get("a", pytest.fail) == {"x": 1}
    assert report.get("b", lambda: {"x": 2}) == {"x": 2}
    assert report.get("c", pytest.fail, final=("out of memory",)) == {"error": "out of memory"}


@pytest.mark.skipif(not has_tpu_compiler(), reason="there is no libtpu for this platform")
class TestWithTheTPUCompiler:
    def test_splash_needs_less_than_half_the_memory_of_dense_attention(self):
        """One layer of few heads, and of what dense attention needs the scores in bfloat16 alone."""
        heads, tokens, images = 4, 1024, 2 * attention_memory.BATCH
        small = dict(depth=1, width=128, num_heads=heads, block_order="ca")
        splash = attention_memory.compile_step("LEDiT-S/2", "v5e", tokens, "splash", **small)["scratch"]
        assert splash < 0.5 * 2 * images * heads * tokens**2 / 1e9

    def test_compiled_counts_and_the_floor_agree_on_the_order(self):
        """Dense attention at 256x256: the program does what the model asks for, and no less."""
        config = Config.from_dict(roofline.imagenet256.get_config("LEDiT-S/2").to_dict()).replaced("model", depth=2)
        flops = roofline.compiled_counts(config, "sample", 256, 2, "xla", depth=2)["flops"]
        floor, _ = roofline.floor(config, "sample", 256, 2)
        assert 0.95 < flops / floor < 1.2
