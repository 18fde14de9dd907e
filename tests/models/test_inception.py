"""Inception of 2015 with random weights in the published names and shapes: our forward pass against torch-fidelity's,
for both files, and what the reader refuses."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from oracles import fidelity, inception_graph

from ledit_jax.convert.inception import convert_inception, graph_names, load_inception, read_inception
from ledit_jax.errors import CheckpointError, ConversionError, DataError, OutputError
from ledit_jax.models.inception import average_pool, resize

SIZES = [(40, 64), (330, 512)]  # aspect kept by nobody; up, and down


@pytest.fixture(scope="module")
def state():
    return fidelity.random_inception()


@pytest.fixture(scope="module")
def port(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def network(port):
    return load_inception(port)


@pytest.fixture(scope="module")
def forward(network):
    graphdef, params = nnx.split(network)
    return lambda x: jax.jit(lambda p, x: nnx.merge(graphdef, p)(x))(params, x)


def images(height, width, count=2):
    return np.random.default_rng(height).integers(0, 256, (count, height, width, 3)).astype(np.float32)


def assert_near(ours, theirs):
    """Within 1e-4 of the size of the features, whose standard deviation is 5 to 15 here."""
    assert theirs.std() > 1
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_forward_pass_equals_torch_fidelity(state, forward, size):
    x = images(*size)
    features, spatial = forward(x)
    theirs, by_place, _ = fidelity.inception_features(state, x.astype(np.uint8))
    assert_near(features, theirs)
    # sFID's 2,023 numbers: places row by row, at each of them the first 7 channels.
    assert spatial.shape == (2, 2023)
    assert_near(np.asarray(spatial).reshape(2, 17, 17, 7)[:, 3, 11], by_place[:, 3, 11, :7])
    assert_near(spatial, by_place[..., :7].reshape(2, -1))


@pytest.mark.parametrize("size", [(1, 5), (32, 20), (299, 298), (700, 300)])
def test_resize_equals_torch_fidelitys(size):
    x = images(*size)
    # Places are float32 there and here: 1 in 2**17.
    np.testing.assert_allclose(resize(jnp.asarray(x)), fidelity.resize(x), atol=2e-2 if max(size) > 600 else 5e-3)


def test_resize_is_not_what_others_do():
    x = images(64, 64)
    half_pixel = jax.image.resize(x, (2, 299, 299, 3), "bilinear")
    assert np.abs(resize(jnp.asarray(x)) - half_pixel).max() > 20
    np.testing.assert_array_equal(resize(jnp.asarray(images(299, 299))), images(299, 299))


def test_average_pooling_leaves_the_padding_out():
    np.testing.assert_allclose(average_pool(jnp.ones((1, 4, 5, 2))), np.ones((1, 4, 5, 2)), rtol=1e-6)


def test_graph_holds_the_same_weights(state, port, tmp_path):
    graph = tmp_path / "classify_image_graph_def.pb"
    graph.write_bytes(inception_graph.inception_graph(state))
    from_port, from_graph = read_inception(port), read_inception(graph)
    assert from_port.keys() == from_graph.keys() and len(from_port) == 2 * 94 + 1
    for name, array in from_port.items():
        np.testing.assert_array_equal(from_graph[name], array, err_msg=name)


def test_graph_that_does_not_scale_after_normalisation_has_no_gamma(state, tmp_path):
    graph = tmp_path / "x.pb"
    graph.write_bytes(inception_graph.inception_graph(state, scale_after_normalization=False))
    unscaled = {k: torch.ones_like(v) if k.endswith("bn.weight") else v for k, v in state.items()}
    torch.save(unscaled, tmp_path / "x.pth")
    expected = read_inception(tmp_path / "x.pth")
    for name, array in read_inception(graph).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_every_name_of_the_graph_is_mapped_once(state):
    names = graph_names()
    assert len(names) == 94 * 5 + 2 == len(set(names.values()))
    assert set(names.values()) == set(state)
    assert names["mixed_6/conv/conv2d_params"] == "Mixed_6d.branch1x1.conv.weight"
    assert names["mixed_9/tower_1/mixed/conv_1/batchnorm/beta"] == "Mixed_7b.branch3x3dbl_3b.bn.bias"


def test_converted_file_is_the_same_and_needs_no_torch(port, tmp_path):
    convert_inception(port, tmp_path / "inception.npz")
    read = read_inception(tmp_path / "inception.npz")
    for name, array in read_inception(port).items():
        np.testing.assert_array_equal(read[name], array)
    with pytest.raises(OutputError, match="exists already"):
        convert_inception(port, tmp_path / "inception.npz")
    with pytest.raises(OutputError, match=r"must end in .npz"):
        convert_inception(port, tmp_path / "inception")


def test_what_takes_no_part_may_be_in_the_file(state, port, tmp_path):
    extra = {"AuxLogits.fc.weight": torch.zeros(3), "Mixed_5b.branch1x1.bn.num_batches_tracked": torch.tensor(1)}
    torch.save(state | extra, tmp_path / "x.pth")
    np.testing.assert_array_equal(read_inception(tmp_path / "x.pth")["fc.kernel"], read_inception(port)["fc.kernel"])


class TestBadFiles:
    def refused(self, path, *parts, error=CheckpointError):
        with pytest.raises(error) as caught:
            read_inception(path)
        assert "\n" not in str(caught.value)
        for part in parts:
            assert part in str(caught.value)

    def test_names_missing_and_extra_and_shapes(self, state, tmp_path):
        state = dict(state)
        del state["Mixed_6b.branch7x7_2.bn.bias"]
        state["Mixed_6b.branch9x9.conv.weight"] = torch.zeros(1)
        state["fc.weight"] = state["fc.weight"][:1000]
        torch.save(state, tmp_path / "x.pth")
        parts = ["missing (1): Mixed_6b.branch7x7_2.bn.bias", "not part of this model (1): Mixed_6b.branch9x9"]
        parts += ["fc.weight is (1000, 2048) and must be (1008, 2048)", f"{tmp_path / 'x.pth'}: "]
        self.refused(tmp_path / "x.pth", *parts, error=ConversionError)

    def test_graph_without_a_name(self, state, tmp_path):
        state = dict(state)
        writer = inception_graph.GraphWriter(state)
        writer.unit("conv", "Conv2d_1a_3x3", "x")
        writer.unit("conv_9", "Conv2d_2a_3x3", "x")
        (tmp_path / "x.pb").write_bytes(writer.graph.SerializeToString())
        parts = ("missing (", "Conv2d_2a_3x3.conv.weight", "conv_9/conv2d_params")
        self.refused(tmp_path / "x.pb", *parts, error=ConversionError)

    def test_not_there(self, tmp_path):
        self.refused(tmp_path / "x.pth", "does not exist", "pt_inception-2015-12-05-6726825d.pth")

    @pytest.mark.parametrize("suffix", [".pth", ".pb", ".npz"])
    def test_cut_short(self, suffix, state, tmp_path):
        file = io.BytesIO()
        if suffix == ".pth":
            torch.save({"a": torch.zeros(1000)}, file)
        elif suffix == ".npz":
            np.savez(file, a=np.zeros(1000))
        else:
            writer = inception_graph.GraphWriter(state)
            writer.unit("conv", "Conv2d_1a_3x3", "x")
            file.write(writer.graph.SerializeToString())
        (tmp_path / f"x{suffix}").write_bytes(file.getvalue()[:700])
        error = DataError if suffix == ".npz" else CheckpointError
        self.refused(tmp_path / f"x{suffix}", "cut short", error=error)

    def test_not_finite(self, state, tmp_path):
        broken = state["fc.weight"].clone()
        broken[5, 5] = float("nan")
        torch.save(state | {"fc.weight": broken}, tmp_path / "x.pth")
        self.refused(tmp_path / "x.pth", "not finite, in fc.weight")
