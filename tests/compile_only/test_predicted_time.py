"""Predicted times: within the arithmetic of known products, and worked out on paper for a program written by hand."""

import json
from pathlib import Path

import pytest
from script_runs import run

import ledit_jax
from ledit_jax.compile_only.groups import first_group
from ledit_jax.compile_only.hlo import Program
from ledit_jax.compile_only.predicted_time import predict_time
from ledit_jax.compile_only.topology import has_tpu_compiler, parse_topology

PACKAGE = Path(ledit_jax.__file__).parent

PRODUCTS = """
import json, sys
import jax, jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
from ledit_jax.compile_only.hlo import Program
from ledit_jax.compile_only.predicted_time import predict_time
from ledit_jax.compile_only.topology import describe_devices, parse_topology
from ledit_jax.flops import PEAK_BF16_FLOPS

def predicted(slice_name, n, loops):
    topology = parse_topology(slice_name)
    devices = describe_devices(topology)
    x = jax.ShapeDtypeStruct((n, n), jnp.bfloat16, sharding=SingleDeviceSharding(devices[0]))
    def products(x, w):
        return jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=loops)[0]
    text = jax.jit(products).lower(x, x).compile().as_text()
    time = predict_time(Program(text), topology, PEAK_BF16_FLOPS[devices[0].device_kind], [devices[0].coords])
    return time.compute, time.costliest[0].milliseconds

names = {name: predicted(name, 2048, 8) for name in ("v5e:1x1", "v6e:1x1", "v5p:1x1x1", "tpu7x:1x1x1")}
print(json.dumps(names | {"again": predicted("v5e:1x1", 2048, 8), "longer": predicted("v5e:1x1", 2048, 24)}))
"""


@pytest.mark.skipif(not has_tpu_compiler(), reason="there is no libtpu for this platform")
def test_known_products_are_within_their_arithmetic(tmp_path):
    script = tmp_path / "products.py"
    script.write_text(PRODUCTS)
    result = run(str(script))
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    for name, peak in {"v5e:1x1": 197e12, "v6e:1x1": 918e12, "v5p:1x1x1": 459e12, "tpu7x:1x1x1": 1153.5e12}.items():
        at_peak = 1e3 * 8 * 2 * 2048**3 / peak
        compute, costliest = found[name]
        assert at_peak <= costliest <= compute < 5 * at_peak, (name, at_peak, compute)
    assert found["again"] == found["v5e:1x1"], "the same numbers each time"
    assert 16 * found["again"][1] / 8 == pytest.approx(found["longer"][1] - found["again"][1], rel=1e-3)


SHORT = {
    "MOSAIC": 'custom_call_target="tpu_custom_call"',
    "CONFIG": "backend_config",
    "PACKAGE": str(PACKAGE),
    "HEADS": "bf16[1,16,512,72]{3,2,1,0}",
    "KEPT": "operand_layout_constraints",
    "BACKWARD": 'op_name="jit(step)/transpose(jvp())/dot_general"',
}
# Four chips in a square. A loop of 5 rounds runs a fusion of 3,000 cycles, a kernel and a gather; the entry permutes.
HAND_WRITTEN = """HloModule step, is_scheduled=true, num_partitions=4

FileNames
1 "PACKAGE/models/block.py"
2 "PACKAGE/models/linear.py"
3 "/elsewhere/linear.py"

FunctionNames
1 "f"

FileLocations
1 {file_name_id=1 function_name_id=1 line=30 end_line=30 column=1 end_column=9}
2 {file_name_id=2 function_name_id=1 line=39 end_line=39 column=1 end_column=9}
3 {file_name_id=3 function_name_id=1 line=7 end_line=7 column=1 end_column=9}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=3}

%product (p: bf16[8,8]) -> bf16[8,8] {
  %p = bf16[8,8]{1,0} parameter(0)
  %dot.1 = bf16[8,8]{1,0} dot(%p, %p), metadata={BACKWARD stack_frame_id=3}
  ROOT %inner = bf16[8,8]{1,0} fusion(%dot.1), kind=kLoop, calls=%nothing, backend_config={"estimated_cycles":"77"}
}

%nothing (q: bf16[8,8]) -> bf16[8,8] {
  ROOT %q = bf16[8,8]{1,0} parameter(0)
}

%body (state: (s32[], bf16[8,8])) -> (s32[], bf16[8,8]) {
  %state = (s32[], bf16[8,8]) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = bf16[8,8]{1,0} get-tuple-element(%state), index=1
  %y = bf16[8,8]{1,0} fusion(%x), calls=%product, metadata={stack_frame_id=1}, CONFIG={"a":{"estimated_cycles":"3000"}}
  %splash_mha_fwd.3 = HEADS custom-call(%x, %x, %x), MOSAIC, KEPT={HEADS, HEADS, HEADS}, a={kernel_metadata={
"xprof_metadata":"{\\"block_q\\": 512}"
}}, metadata={op_name="jit(step)/jvp(blocks_3_of_4)/pallas_call" stack_frame_id=1}
  %all = bf16[16,8]{1,0} all-gather(%x), channel_id=1, replica_groups={{0,1},{2,3}}, dimensions={0}
  ROOT %out = (s32[], bf16[8,8]{1,0}) tuple(%i, %y)
}

%condition (state: (s32[], bf16[8,8])) -> pred[] {
  ROOT %state.1 = pred[] parameter(0)
}

ENTRY %main (x: (s32[], bf16[8,8])) -> bf16[8,8] {
  %start = (s32[], bf16[8,8]) parameter(0)
  %loop = (s32[], bf16[8,8]) while(%start), condition=%condition, body=%body, config={"known_trip_count":{"n":"5"}}
  %x.1 = bf16[8,8]{1,0} get-tuple-element(%loop), index=1
  ROOT %moved = bf16[8,8]{1,0} collective-permute(%x.1), channel_id=2, source_target_pairs={{0,3},{3,0}}
}
"""


def test_a_program_written_by_hand():
    """Every number is worked out on paper: cycles at 1.5 GHz, links of 50 GB/s of which a square's side has one."""
    text = HAND_WRITTEN
    for short, long in SHORT.items():
        text = text.replace(short, long)
    square = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)]
    time = predict_time(Program(text), parse_topology("v5e:2x2"), 197e12, square)
    assert time.generated == pytest.approx(5 * 3000 / 1.5e6, abs=1e-4), "what is fused has no time of its own"
    flops, moved = 2 * 2 * 16 * 512 * 512 * 128 * 3 / 4, 4 * 16 * 512 * 128 * 2
    assert moved / 819e9 > flops / 197e12, "of this kernel the memory is the limit"
    assert time.kernels == pytest.approx(5e3 * moved / 819e9, abs=1e-4)
    assert time.network == pytest.approx(1e3 * (5 * 128 + 2 * 128) / 50e9, abs=1e-4), "a permute over two links"
    assert [cost.place for cost in time.costliest] == [
        "models/block.py:30 pallas_call forward",
        "models/block.py:30 > models/linear.py:39 dot_general backward",
    ]
    assert time.hidden == pytest.approx(time.compute) and time.exposed == pytest.approx(time.compute + time.network)
    own_word = 'a={"cost_estimate":{"flops":"3940000000"},kernel'
    stated = text.replace("splash_mha", "short_mha").replace("a={kernel", own_word)
    stated = predict_time(Program(stated), parse_topology("v5e:2x2"), 197e12, square)
    assert stated.kernels == pytest.approx(5e3 * 3.94e9 / 197e12, abs=1e-4), "another kernel's own word"
    longer = predict_time(Program(text.replace("512,72", "4096,72")), parse_topology("v5e:2x2"), 197e12, square)
    assert longer.kernels == pytest.approx(5e3 * 64 * flops / 197e12, abs=1e-4), "of a longer one the products are"
    for products, out in {4: "(HEADS, HEADS)", 5: "(bf16[1,2,16,512,72]{4,3,2,1,0}, HEADS, HEADS)"}.items():
        backward = text.replace(f"%splash_mha_fwd.3 = {SHORT['HEADS']}", f"%splash_mha_dkv.3 = {out}")
        backward = backward.replace("HEADS", SHORT["HEADS"]).replace("512,72", "4096,72")
        backward = predict_time(Program(backward), parse_topology("v5e:2x2"), 197e12, square)
        assert backward.kernels == pytest.approx(5e3 * 64 * products / 2 * flops / 197e12, abs=1e-4), "fused or not"


@pytest.mark.parametrize(
    "groups, first",
    [
        ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", (0, 1, 2, 3)),
        ("mesh['a'=4,'b'=2] {'a'}", (0, 2, 4, 6)),
        ("mesh['a'=8] {'a':(2)4}", (0, 1, 2, 3)),
        ("[2,4]<=[4,2]T(1,0)", (0, 2, 4, 6)),
        ("{{3,1},{2,0}}", (3, 1)),
    ],
)
def test_who_is_in_a_group(groups, first):
    assert first_group(f"channel_id=1, replica_groups={groups}, dimensions={{0}}", 8) == first
