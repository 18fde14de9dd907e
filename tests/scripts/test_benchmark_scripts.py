"""The benchmark scripts, as small as they go: what is written can be resumed. A GPU's is in test_gpu_benchmark.py."""

import pytest

from benchmarks import attention_memory, roofline
from benchmarks.report import Report
from ledit_jax.compile_only.topology import has_tpu_compiler
from ledit_jax.config import Config


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
