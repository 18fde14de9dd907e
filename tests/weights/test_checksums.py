"""Damaged weights are noticed: one flipped bit, wherever it is, of a checkpoint that says what it held."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from launch import run_on_eight_devices
from tiny import noisy_params, tiny_config

from ledit_jax.errors import CheckpointError
from ledit_jax.models.vae import AutoencoderKL, VAEConfig
from ledit_jax.weights import export_vae, export_weights, find_checkpoint, load_vae, load_weights
from ledit_jax.weights.checksums import array_checksums, changed_arrays


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "uint32", "bool"])
def test_any_flipped_bit_and_any_two_elements_that_change_places_are_seen(dtype):
    values = np.arange(24).reshape(2, 3, 4) % (2 if dtype == "bool" else 24)
    array = np.asarray(jnp.asarray(values, dtype))
    written = array_checksums({"a": array})
    for place in range(0, array.nbytes, 5):
        if dtype == "bool":
            other = array.copy()
            other.flat[place] ^= True
        else:
            data = bytearray(array.tobytes())
            data[place] ^= 1 << place % 8
            other = np.frombuffer(data, array.dtype).reshape(array.shape)
        assert changed_arrays(written, {"a": other}) == ["a"]
    swapped = array.copy()
    swapped[0, 0, 0], swapped[1, 2, 2] = 1, 0
    swapped[0, 0, 1], swapped[0, 0, 2] = array[0, 0, 2], array[0, 0, 1]
    assert changed_arrays(written, {"a": swapped}) == ["a"]
    assert changed_arrays(written, {"a": array}) == changed_arrays({}, {"a": swapped}) == []


def test_arrays_on_the_host_and_split_over_devices_have_the_same_checksum(tmp_path):
    script = """
import jax, numpy as np
from jax.sharding import PartitionSpec as P
from ledit_jax.weights import checksums
array = np.random.default_rng(0).normal(size=(64, 40)).astype(np.float32)
checksums._FEW = array.size - 1  # too many for NumPy alone
mesh = jax.make_mesh((4, 2), ("a", "b"))
places = [jax.sharding.NamedSharding(mesh, spec) for spec in (P(), P("a", "b"), P(None, "b"))]
arrays = [array] + [jax.device_put(array, place) for place in places]
sums = {tuple(map(int, checksums._sums([array])[0])) for array in arrays}
print(sums == {checksums._sum_on_host(array)}, len({str(checksums.array_checksums([array])) for array in arrays}))
"""
    assert run_on_eight_devices(script, tmp_path).strip() == "True 1"


def test_a_flipped_bit_in_a_checkpoint_is_noticed_and_older_checkpoints_load(tmp_path):
    """A flip that Orbax itself reads without a word is found; with the checksums left out, it still loads."""
    config = tiny_config()
    export_weights(tmp_path / "x", noisy_params(config), config, step=3)
    whole = load_weights(tmp_path / "x")[0]
    step = find_checkpoint(tmp_path / "x")
    file = max((path for path in (step / "ema").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content, messages = file.read_bytes(), []
    for place in np.linspace(len(content) // 8, len(content) * 7 // 8, 8).astype(int):
        data = bytearray(content)
        data[place] ^= 1
        file.write_bytes(data)
        try:
            jax.tree.map(np.testing.assert_array_equal, load_weights(tmp_path / "x")[0], whole)
        except CheckpointError as error:
            messages.append(str(error))
            if "are not as they were written" in messages[-1]:
                break
    assert "is damaged: of ema, 1 arrays are not as they were written" in messages[-1]
    note = step / "config" / "metadata"
    description = json.loads(note.read_text())
    del description["checksums"]
    note.write_text(json.dumps(description))
    file.write_bytes(content)  # which bit was flipped is chance, and it may have made a NaN, which no checkpoint loads
    load_weights(tmp_path / "x")


def test_an_autoencoder_is_held_against_its_checksums_too(tmp_path):
    config = VAEConfig(block_out_channels=(8,), layers_per_block=1, norm_num_groups=4)
    export_vae(tmp_path / "v", nnx.to_pure_dict(nnx.state(AutoencoderKL(config, nnx.Rngs(0)), nnx.Param)), config)
    note = find_checkpoint(tmp_path / "v") / "config" / "metadata"
    description = json.loads(note.read_text())
    name = next(iter(description["checksums"]["vae"]))
    description["checksums"]["vae"][name] = "float32 00000000 00000000"  # as if it were the array that changed
    note.write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=f"is damaged: of vae, 1 arrays are not as they were written, {name}"):
        load_vae(tmp_path / "v")
