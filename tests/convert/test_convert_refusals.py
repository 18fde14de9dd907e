"""Weights that are no DiT's and options that do not fit the file: refused in one line, nothing written."""

import pytest
import torch
from convert.dit_files import convert, oracle, small

from ledit_jax.errors import CheckpointError, ConfigError, ConversionError


def test_every_fault_is_in_one_line(tmp_path):
    state = oracle(small()).state_dict()
    del state["blocks.1.attn.qkv.bias"], state["t_embedder.mlp.0.weight"]
    state["extra.weight"] = torch.zeros(3)
    state["blocks.0.mlp.fc2.bias"] = torch.zeros(31)
    state["pos_embed"] = torch.zeros(1, 15, 32)
    with pytest.raises(ConversionError) as caught:
        convert(state, tmp_path)
    error = caught.value
    assert set(error.missing) == {"blocks.1.attn.qkv.bias", "t_embedder.mlp.0.weight"}
    assert error.unmapped == ("extra.weight",)
    assert set(error.wrong_shape) == {
        ("blocks.0.mlp.fc2.bias", (31,), (32,)),
        ("pos_embed", (1, 15, 32), (1, 16, 32)),
    }
    assert "\n" not in str(error) and not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize(
    "change, error, message",
    [
        (lambda s: s["pos_embed"][0, 5, 7].add_(1e-2), CheckpointError, "pos_embed is not DiT's sin/cos table .*0.01"),
        (
            lambda s: s["blocks.1.mlp.fc1.bias"].fill_(float("nan")),
            CheckpointError,
            "fc1.bias holds values that are not",
        ),
        (lambda s: s.pop("pos_embed"), ConversionError, "missing .1.: pos_embed"),
        (
            lambda s: s.update({"final_layer.linear.bias": torch.zeros(32, dtype=torch.int8)}),
            CheckpointError,
            "holds int8",
        ),
    ],
    ids=["positions", "nan", "no positions", "integers"],
)
def test_weights_that_are_not_a_dit_s(tmp_path, change, error, message):
    state = oracle(small()).state_dict()
    change(state)
    with pytest.raises(error, match=message):
        convert(state, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(num_heads=None), "no preset has width 32: give num_heads"),
        (dict(num_heads=5), "num_heads=5 does not divide model.width=32"),
        (dict(model="DiT-S/2"), "model=DiT-S/2 has depth=12, and the file 2"),
        (dict(model="LEDiT-S/2"), "model=LEDiT-S/2 has depth=12"),
        (dict(model="DiT-Q/2"), "model name 'DiT-Q/2' is unknown"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        convert(oracle(small()).state_dict(), tmp_path, **options)
