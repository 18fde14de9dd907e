"""Collectives and products in programs written by hand, where every number can be worked out on paper."""

import jax
import jax.numpy as jnp
import pytest

from ledit_jax.compile_only.counts import count_collectives, count_flops
from ledit_jax.compile_only.hlo import Program

# Four devices. A loop of 6 rounds (0, 2 .. 10, below 12) gathers, and its body calls a fusion; the entry reduces.
HAND_WRITTEN = """HloModule step, is_scheduled=true, num_partitions=4

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (p: f32[64]) -> f32[16] {
  %p = f32[64]{0} parameter(0)
  %all-reduce.9 = f32[64]{0:T(256)} all-reduce(%p), channel_id=9, replica_groups={{0,1,2,3}}
  %zero = s32[] constant(0)
  ROOT %slice = f32[16]{0} dynamic-slice(%all-reduce.9, %zero), dynamic_slice_sizes={16}
}

%async_first (p: bf16[8,16]) -> bf16[32,16] {
  %p.1 = bf16[8,16]{1,0} parameter(0)
  ROOT %all-gather.1 = bf16[32,16]{1,0:T(8,128)} all-gather(%p.1), channel_id=1, replica_groups=mesh['x'=4] {'x'}
}

%async_second (p: bf16[8,16]) -> bf16[32,16] {
  %p.2 = bf16[8,16]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[32,16]{1,0:T(8,128)} all-gather(%p.2), channel_id=1, replica_groups=mesh['x'=4] {'x'}
}

%body (state: (s32[], bf16[8,16], f32[64])) -> (s32[], bf16[8,16], f32[64]) {
  %state = (s32[]{:T(128)}, bf16[8,16]{1,0}, f32[64]{0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  %shard = bf16[8,16]{1,0} get-tuple-element(%state), index=1
  %whole = bf16[32,16]{1,0} fusion(%shard), kind=kCustom, calls=%async_first
  %whole.2 = bf16[32,16]{1,0} fusion(%shard), kind=kCustom, calls=%async_second
  %gradient = f32[64]{0} get-tuple-element(%state), index=2
  %part = f32[16]{0} fusion(%gradient), kind=kCustom, calls=%all-reduce-scatter.1
  %permute = (bf16[8,16], bf16[8,16], u32[], u32[]) collective-permute-start(%shard), channel_id=3
  %kernel = f32[] custom-call(%shard), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q\\": 256}"
}}, metadata={op_name="splash"}
  %square = f32[8,8]{1,0} dot(%shard, %shard), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  ROOT %out = (s32[], bf16[8,16]{1,0}, /*index=2*/f32[64]{0}) tuple(%next, %shard, %gradient)
}

%condition (state: (s32[], bf16[8,16], f32[64])) -> pred[] {
  %state.1 = (s32[], bf16[8,16], f32[64]) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %limit = s32[] constant(12)
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

ENTRY %main (x: bf16[8,16], g: f32[64]) -> f32[64] {
  %x = bf16[8,16]{1,0} parameter(0)
  %g = f32[64]{0} parameter(1)
  %start = s32[] constant(0)
  %begin = s32[]{:S(6)} copy(%start)
  %initial = (s32[], bf16[8,16], f32[64]) tuple(%begin, %x, %g)
  %loop = (s32[], bf16[8,16], f32[64]) while(%initial), condition=%condition, body=%body
  %last = f32[64]{0} get-tuple-element(%loop), index=2
  %norms = (f32[64], f32[64]) all-reduce(%last, %g), channel_id=5, replica_groups=[2,2]<=[4], to_apply=%add
  ROOT %result = f32[64]{0} get-tuple-element(%norms), index=0
}
"""


def test_collectives_of_a_program_written_by_hand():
    traffic = count_collectives(Program(HAND_WRITTEN))
    found = {kind: (t.count, t.sent_bytes) for kind, t in traffic.items()}
    assert found == {
        "all-gather": (6, 6 * 3 * 8 * 16 * 2),  # once in each round, though two fusions carry it
        "reduce-scatter": (6, 6 * 64 * 4 * 3 // 4),
        "collective-permute": (6, 6 * 8 * 16 * 2),
        "all-reduce": (1, 2 * 2 * 64 * 4 // 2),  # two operands, in pairs of devices
        "all-to-all": (0, 0),
    }


@pytest.mark.parametrize(
    "groups, others",
    [
        ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", 3),
        ("mesh['a'=4,'b'=2] {'a','b'}", 7),
        ("mesh['a'=8] {'a':(2)4}", 3),
        ("[2,4]<=[8]", 3),
        ("{{0,1},{2,3}}", 1),
        ("{}", 7),
    ],
)
def test_every_way_of_writing_groups(groups, others):
    text = f"""HloModule gather, num_partitions=8

ENTRY %main (x: f32[16]) -> f32[64] {{
  %x = f32[16]{{0}} parameter(0)
  ROOT %all = f32[64]{{0}} all-gather(%x), channel_id=1, replica_groups={groups}, dimensions={{0}}
}}
"""
    assert count_collectives(Program(text))["all-gather"].sent_bytes == others * 16 * 4
    with pytest.raises(ValueError, match="groups of a form that is not known"):
        count_collectives(Program(text.replace(f"replica_groups={groups}", "replica_groups=<new>")))


def test_products_in_loops_count_as_often_as_they_run():
    assert count_flops(Program(HAND_WRITTEN)) == 6 * 2 * 8 * 8 * 16


def test_xlas_note_on_a_loops_length_is_believed():
    noted = HAND_WRITTEN.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"5"}}')
    assert count_flops(Program(noted)) == 5 * 2 * 8 * 8 * 16


def test_a_loop_of_unknown_length_is_an_error():
    with pytest.raises(ValueError, match="loop loop: the limit of its counter is not a constant"):
        count_flops(Program(HAND_WRITTEN.replace("s32[] constant(12)", "s32[] parameter(1)")))


def test_a_product_that_the_tpu_compiler_writes_as_a_convolution_over_zeros():
    """Four products of 8x3 by 3x5, as a dilated convolution whose window meets one value in each place."""
    text = """HloModule batched

ENTRY %main (a: f32[4,8,3], b: f32[4,5,3]) -> f32[4,8,5] {
  %a = f32[4,8,3]{2,1,0} parameter(0)
  %b = f32[4,5,3]{2,1,0} parameter(1)
  ROOT %c = f32[4,8,5]{2,1,0} convolution(%a, %b), window={size=4 stride=3 lhs_dilate=4}, dim_labels=0bf_0oi->0bf
}
"""
    assert count_flops(Program(text)) == 2 * 4 * 8 * 3 * 5


def test_a_real_scan_counts_every_round():
    """XLA's own count is the oracle for the unrolled program; for the scanned one it stops after one round."""

    def products(x, unroll):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ x), None), x, None, length=7, unroll=unroll)[0]

    compiled = {n: jax.jit(products, static_argnums=1).lower(jnp.ones((64, 64)), n).compile() for n in (1, 7)}
    counts = {n: count_flops(Program(c.as_text())) for n, c in compiled.items()}
    assert counts[1] == counts[7] == 7 * 2 * 64**3
    assert compiled[7].cost_analysis()["flops"] >= counts[7] > 5 * compiled[1].cost_analysis()["flops"]
