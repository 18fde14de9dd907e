"""SiT's and REPA's files: DiT's names and shapes, and another meaning."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
from convert.dit_files import convert, noise, oracle, relative_error, run_torch, small
from convert.test_convert_diffusers import diffusers_dit
from tiny import network_of

from ledit_jax.config import Config
from ledit_jax.convert.read import convert_to_checkpoint
from ledit_jax.convert.write import convert_to_torch
from ledit_jax.diffusion import make_process
from ledit_jax.errors import CheckpointError, ConfigError
from ledit_jax.models import make_apply
from ledit_jax.training.init_from import init_from_checkpoint
from ledit_jax.weights import load_weights

TIMES = np.array([0.0, 0.3, 1.0], np.float32)  # as noise-time
LABELS = np.array([0, 3, 10])


def save(state, path):
    path.parent.mkdir(exist_ok=True)
    torch.save(state, path)
    return path


def repa_state(peer):
    """The first C of each token's outputs, and heads that sampling does not use."""
    state = dict(peer.state_dict())
    for leaf in ("weight", "bias"):
        name = f"final_layer.linear.{leaf}"
        state[name] = state[name].unflatten(0, (4, 8))[:, :4].flatten(0, 1).contiguous()
    return state | {"projectors.0.0.weight": torch.zeros(3, 32), "projectors.0.0.bias": torch.zeros(3)}


def velocity(checkpoint, x):
    params, config, _ = load_weights(checkpoint)
    apply = make_apply(network_of(config))
    denoise = lambda x, t: apply(params, x, t, jnp.asarray(LABELS))  # noqa: E731
    return make_process(config).velocity(denoise, jnp.asarray(x), jnp.asarray(TIMES))


def test_sit(tmp_path, caplog):
    """Its network is fed 1 - t and says the velocity towards data, in the first half of its channels."""
    peer, x = oracle(small()), noise(3, 8, 8, 4)
    with caplog.at_level("INFO"):
        checkpoint = convert(peer.state_dict(), tmp_path, objective="flow")
    assert "a flow (flow.convention=sit): its last layer changes sign" in caplog.text
    want = -run_torch(peer, x, 1 - TIMES, LABELS)[..., :4]
    assert relative_error(velocity(checkpoint, x), want) < 1e-5
    config = load_weights(checkpoint)[1]
    assert (config.sample.sampler, config.sample.cfg_channels) == ("sde", "3")


def test_repa(tmp_path, caplog):
    """It is fed t, says the velocity towards noise in C channels, and brings heads, which give it away."""
    peer, x = oracle(small()), noise(3, 8, 8, 4)
    with caplog.at_level("INFO"):
        checkpoint = convert(repa_state(peer), tmp_path)
    assert "dropped 2 tensors of REPA's projector heads" in caplog.text
    assert "its name says REPA: read as a flow" in caplog.text and "sign" not in caplog.text
    assert relative_error(velocity(checkpoint, x), run_torch(peer, x, TIMES, LABELS)[..., :4]) < 1e-5
    assert load_weights(checkpoint)[1].sample.cfg_interval == (0.0, 0.7)


@pytest.mark.parametrize("make", [lambda peer: peer.state_dict(), repa_state], ids=["sit", "repa"])
def test_there_and_back_bit_for_bit(tmp_path, make):
    state = make(oracle(small()))
    checkpoint = convert(state, tmp_path, objective="flow")
    convert_to_torch(checkpoint, tmp_path / "back.safetensors")
    back = safetensors.torch.load_file(tmp_path / "back.safetensors")
    assert back.keys() == {name for name in state if not name.startswith("projectors.")}
    for name in back.keys() - {"pos_embed"}:
        assert torch.equal(back[name].view(torch.int32), state[name].view(torch.int32)), name


@pytest.mark.parametrize(
    "name, options, convention",
    [
        ("SiT-XL-2-256.pt", {}, "sit"),
        ("checkpoints/sit_xl.pt", {}, "sit"),
        ("sit-s/0400000.pt", {}, "sit"),
        ("visit.pt", {}, None),
        ("SiT.pt", {"objective": "noise"}, None),
    ],
)
def test_names_tell_what_tensors_do_not(tmp_path, caplog, name, options, convention):
    path = save(oracle(small()).state_dict(), tmp_path / name)
    with caplog.at_level("INFO"):
        convert_to_checkpoint(path, tmp_path / "c", num_heads=4, **options)
    config = load_weights(tmp_path / "c")[1]
    assert config.diffusion.objective == ("flow" if convention else "noise")
    if convention:
        assert config.flow.convention == convention and "its name says SiT: read as a flow" in caplog.text
    elif not options:
        assert "a SiT has the same names and shapes" in caplog.text


def test_contradictions_are_one_line(tmp_path):
    cases = [
        ("SiT.pt", oracle(small()).state_dict(), dict(model="DiT-S/2"), "is a SiT by its name, and model=DiT-S/2"),
        ("x.pt", repa_state(oracle(small())), dict(model="SiT-S/2"), "model=SiT-S/2 does not fit the 16 outputs"),
    ]
    bare = {name: tensor for name, tensor in repa_state(oracle(small())).items() if not name.startswith("projectors")}
    cases += [("x.pt", bare, {}, "predicts 4 channels, and DiT's diffusion needs twice as many: give objective=flow")]
    for name, state, options, words in cases:
        with pytest.raises((ConfigError, CheckpointError), match=words) as error:
            convert_to_checkpoint(save(state, tmp_path / name), tmp_path / "c", num_heads=4, **options)
        assert "\n" not in str(error.value) and not (tmp_path / "c").exists()


def test_a_ledit_starts_from_a_sit(tmp_path):
    """The convolution is the identity: step 0 is the SiT without positions, in SiT's convention."""
    checkpoint = convert(oracle(small()).state_dict(), tmp_path, objective="flow")
    source = load_weights(checkpoint)[1]
    config = source.replaced("model", position="none", conv="dense", block_order="sa_ca")
    _, report = init_from_checkpoint(checkpoint, config, jax.random.key(0))
    assert report.initialised == ("conv/bias (32,)", "conv/kernel (3, 3, 32, 32)") and not report.dropped
    with pytest.raises(CheckpointError, match="was trained with flow.convention=sit, and this config has noise_time"):
        init_from_checkpoint(checkpoint, config.replaced("flow", convention="noise_time"), jax.random.key(0))


def test_from_a_diffusion_to_a_flow_the_last_layer_starts_anew(tmp_path):
    checkpoint = convert(oracle(small()).state_dict(), tmp_path)
    values = load_weights(checkpoint)[1].to_dict()
    values["diffusion"]["objective"], values["flow"]["time_scale"] = "flow", 1000.0
    values["sample"]["sampler"] = "ab2"
    config = Config.from_dict(values)
    params, report = init_from_checkpoint(checkpoint, config, jax.random.key(0))
    assert "dropped: final_layer/linear/kernel (32, 32) (it predicted for noise)" in str(report)
    assert params["final_layer"]["linear"]["kernel"].shape == (32, 16)
    assert not params["final_layer"]["linear"]["kernel"].any()


def test_a_folder_of_diffusers_says_by_its_class_that_it_is_a_sit(tmp_path, caplog):
    """diffusers has no SiT of its own; people save one as its DiT, by another class name."""
    network = diffusers_dit()
    network.save_pretrained(tmp_path / "transformer")
    file = tmp_path / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"_class_name": "SiTTransformer2DModel"}))
    with caplog.at_level("INFO"):
        convert_to_checkpoint(tmp_path / "transformer", tmp_path / "c")
    assert "its name says SiT: read as a flow" in caplog.text
    params, config, _ = load_weights(tmp_path / "c")
    assert (config.diffusion.objective, config.flow.convention) == ("flow", "sit")
    bias = network.proj_out_2.bias.detach().numpy()
    np.testing.assert_array_equal(params["final_layer"]["linear"]["bias"], -bias)
