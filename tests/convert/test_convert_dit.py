"""DiT's and LEDiT's weights through files and back, against diffusers' own class and the PyTorch oracle."""

import argparse
import collections
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel
from flax import nnx
from oracles import ledit_params, torch_dit, torch_scans
from tiny import network_of

from ledit_jax.config import Config, model_preset
from ledit_jax.convert.dit import dit_config, dit_layout, dit_table, position_shapes
from ledit_jax.convert.read import convert_to_checkpoint
from ledit_jax.convert.tables import check_table, flatten_params, param_shapes
from ledit_jax.convert.write import convert_to_torch
from ledit_jax.diffusion import create_diffusion
from ledit_jax.diffusion.guidance import guided
from ledit_jax.errors import CheckpointError, ConfigError, ConversionError
from ledit_jax.models.functional import abstract_params, make_apply
from ledit_jax.sampling.pipeline import load_model
from ledit_jax.training.init_from import init_from_checkpoint
from ledit_jax.weights import load_weights

SMALL = dict(depth=2, width=32, num_heads=4, num_classes=10)
GRID = (4, 4)
T, Y = np.array([0, 500, 999]), np.array([0, 3, 10])


def small(family="DiT", **fields):
    return model_preset(f"{family}-S/2", **(SMALL | fields))


def oracle(config, seed=0, grid=GRID):
    peer = torch_dit.torch_peer(config, grid=grid).eval()
    return torch_dit.randomise_(peer, seed)


def convert(state, folder, suffix=".pt", **options):
    """The checkpoint made of what torch.save or safetensors writes."""
    path = folder / f"weights{suffix}"
    safetensors.torch.save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    convert_to_checkpoint(path, folder / "checkpoint", **({"num_heads": 4} | options))
    return folder / "checkpoint"


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run_torch(model, x, t=T, y=Y):
    """A PyTorch model on NHWC arrays."""
    with torch.no_grad():
        out = model(torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(t), torch.from_numpy(y))
    return (out if isinstance(out, torch.Tensor) else out.sample).permute(0, 2, 3, 1).numpy()


def relative_error(got, want):
    return np.abs(np.asarray(got) - want).max() / np.abs(want).max()


def assert_params_are(checkpoint, peer):
    """The checkpoint holds exactly the tensors of the oracle, in the layout that the oracle's own file defines."""
    params, config, _ = load_weights(checkpoint)
    want = ledit_params.to_ledit_params(peer, abstract_params(network_of(config)))
    jax.tree.map(np.testing.assert_array_equal, params, want)


def flat_training_file():
    state = {f"ema.{name}": t for name, t in oracle(small()).state_dict().items()}
    return state | {f"model.{name}": t for name, t in oracle(small(), seed=1).state_dict().items()}


def training_file():
    """As facebookresearch/DiT's train.py writes it."""
    peer = oracle(small(), seed=1)
    opt = torch.optim.AdamW(peer.parameters())
    for parameter in peer.parameters():
        parameter.grad = torch.ones_like(parameter)
    opt.step()
    args = argparse.Namespace(model="DiT-S/2", global_batch_size=256)
    model, ema = (oracle(small(), seed).state_dict() for seed in (1, 0))
    return {"model": model, "ema": ema, "opt": opt.state_dict(), "args": args}


def test_state_dict(tmp_path):
    peer = oracle(small())
    checkpoint = convert(peer.state_dict(), tmp_path)
    assert_params_are(checkpoint, peer)
    model, config = load_model(checkpoint)
    assert config.model == small()
    assert (config.autoencoder.kind, config.data.image_height, config.latent_shape()) == ("sd", 64, (8, 8, 4))
    x = noise(3, 4, 12, 4)
    assert relative_error(model(x, T, Y), run_torch(peer, x)) < 1e-4


@pytest.mark.parametrize(
    "make, suffix, weights, seed",
    [
        (training_file, ".pt", "ema", 0),
        (training_file, ".pt", "model", 1),
        (flat_training_file, ".safetensors", "ema", 0),
    ],
)
def test_training_file(tmp_path, make, suffix, weights, seed):
    assert_params_are(convert(make(), tmp_path, suffix, weights=weights), oracle(small(), seed))


def test_training_file_without_the_weights_asked_for(tmp_path):
    state = {"model": oracle(small()).state_dict()}
    with pytest.raises(ConfigError, match="weights=ema, and the training file .* holds only model"):
        convert(state, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]


def test_file_of_torch_before_1_6(tmp_path):
    peer, path = oracle(small()), tmp_path / "old.pt"
    torch.save(peer.state_dict(), path, _use_new_zipfile_serialization=False)
    convert_to_checkpoint(path, tmp_path / "checkpoint", num_heads=4)
    assert_params_are(tmp_path / "checkpoint", peer)


@pytest.mark.parametrize("dtype, suffix", [(torch.bfloat16, ".safetensors"), (torch.float16, ".pt")])
def test_narrow_types_widen_exactly(tmp_path, dtype, suffix):
    peer = oracle(small())
    for parameter in peer.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype).float()
    narrow = {name: t if name == "pos_embed" else t.to(dtype) for name, t in peer.state_dict().items()}
    assert_params_are(convert(narrow, tmp_path, suffix), peer)


def test_pixel_model(tmp_path):
    config = small(patch_size=4, num_classes=3, mlp_ratio=2.0)
    peer = torch_dit.torch_peer(config, in_channels=1, grid=(5, 5))
    converted = load_weights(convert(peer.state_dict(), tmp_path))[1]
    assert converted.model == config
    assert (converted.autoencoder.kind, converted.latent_shape()) == ("none", (20, 20, 1))


def diffusers_dit(**settings):
    """diffusers' DiT with random parameters; its blocks each hold a copy of the one timestep and label embedding."""
    sizes = dict(num_attention_heads=4, attention_head_dim=8, num_layers=2, sample_size=8, num_embeds_ada_norm=10)
    model = DiTTransformer2DModel(in_channels=4, out_channels=8, **(sizes | settings)).eval()
    torch_dit.randomise_(model, seed=0)
    first, *rest = model.transformer_blocks
    for block in rest:
        block.norm1.emb.load_state_dict(first.norm1.emb.state_dict())
    return model


def test_diffusers(tmp_path):
    """Its transformer's folder against its own output; then a sharded pipeline, a bare file, a pickle against that."""
    theirs = diffusers_dit()
    folder = tmp_path / "dit" / "transformer"
    theirs.save_pretrained(folder)
    convert_to_checkpoint(folder, tmp_path / "checkpoint")
    model, config = load_model(tmp_path / "checkpoint")
    assert config.model == small(timestep_frequency_shift=1.0) and config.latent_shape() == (8, 8, 4)
    x = noise(3, 8, 8, 4)
    assert relative_error(model(x, T, Y), run_torch(theirs, x)) < 1e-4

    theirs.save_pretrained(tmp_path / "sharded" / "transformer", max_shard_size="50KB")
    assert len(list((tmp_path / "sharded" / "transformer").glob("*.safetensors"))) > 2
    theirs.save_pretrained(tmp_path / "bin", safe_serialization=False)
    for other in ("sharded", "bin", "dit/transformer/diffusion_pytorch_model.safetensors"):
        convert_to_checkpoint(tmp_path / other, tmp_path / "other", overwrite=True)
        params, again, _ = load_weights(tmp_path / "other")
        assert again == config
        jax.tree.map(np.testing.assert_array_equal, params, model.args[0])


def test_diffusers_weights_at_the_frequencies_that_they_were_trained_with(tmp_path, caplog):
    """Shift 0 is DiT's own network of the same weights; the log says which was taken, and what the other one is."""
    theirs = diffusers_dit()
    theirs.save_pretrained(tmp_path / "transformer")
    outputs = []
    for shift in (None, 0.0):
        with caplog.at_level("INFO", logger="ledit_jax"):
            convert_to_checkpoint(tmp_path / "transformer", tmp_path / f"{shift}", frequency_shift=shift)
        used = 1 if shift is None else 0
        assert f"timestep_frequency_shift={used}: 1 is what diffusers computes, 0 what DiT's" in caplog.text
        model, config = load_model(tmp_path / f"{shift}")
        assert config.model.timestep_frequency_shift == used
        outputs.append(model(noise(3, 8, 8, 4), T, Y))
    assert "SiT" not in caplog.text
    convert_to_torch(tmp_path / "0.0", tmp_path / "dit.pt")  # in DiT's layout, as DiT's own code would read it
    peer = oracle(small())
    peer.load_state_dict(torch.load(tmp_path / "dit.pt"), strict=False)
    assert relative_error(outputs[1], run_torch(peer, noise(3, 8, 8, 4))) < 1e-4
    assert relative_error(outputs[0], outputs[1]) > 1e-3


def test_the_log_says_that_a_dit_s_file_might_be_a_sit_s(tmp_path, caplog):
    with caplog.at_level("INFO", logger="ledit_jax"):
        checkpoint = convert(oracle(small()).state_dict(), tmp_path)
        assert "a SiT has the same names and shapes, and predicts a velocity" in caplog.text
        caplog.clear()
        convert_to_torch(checkpoint, tmp_path / "ours.safetensors")
        convert_to_checkpoint(tmp_path / "ours.safetensors", tmp_path / "again")
        assert "SiT" not in caplog.text  # one of ours says what it is


def test_diffusers_copies_that_drifted_apart(tmp_path):
    theirs = diffusers_dit()
    theirs.transformer_blocks[1].norm1.emb.timestep_embedder.linear_2.bias.data[3] += 1e-3
    theirs.save_pretrained(tmp_path / "dit")
    with pytest.raises(CheckpointError, match=r"transformer_blocks\.1\..*linear_2\.bias differs from that of block 0"):
        convert_to_checkpoint(tmp_path / "dit", tmp_path / "checkpoint")


@pytest.mark.parametrize("settings", [{"norm_eps": 1e-3}, {"activation_fn": "gelu"}, {"norm_elementwise_affine": True}])
def test_diffusers_settings_that_dit_does_not_have(tmp_path, settings):
    diffusers_dit(**settings).save_pretrained(tmp_path / "dit")
    with pytest.raises(CheckpointError, match=f"config.json has {next(iter(settings))}="):
        convert_to_checkpoint(tmp_path / "dit", tmp_path / "checkpoint")


def test_50_steps_of_ddim_with_guidance(tmp_path):
    """diffusers' network and scheduler against the converted checkpoint and our chain, from the same start."""
    theirs = diffusers_dit()
    theirs.save_pretrained(tmp_path / "dit")
    convert_to_checkpoint(tmp_path / "dit", tmp_path / "checkpoint")
    params, config, _ = load_weights(tmp_path / "checkpoint")
    apply, start, scale = make_apply(network_of(config)), noise(2, 8, 8, 4), 2.0
    denoise = guided(lambda x, t, y: apply(params, x, t, y), jnp.array([3, 7]), jnp.array([10, 10]), scale, "3")
    ours = jax.jit(lambda x: create_diffusion("ddim50").ddim_sample_loop(denoise, x))(start)

    scheduler = DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False)
    scheduler.set_timesteps(50)
    x = torch.from_numpy(start).permute(0, 3, 1, 2)
    for t in scheduler.timesteps:
        with torch.no_grad():
            out = theirs(torch.cat([x, x]), t.expand(4), torch.tensor([3, 7, 10, 10])).sample[:, :4]
        given, null = out.chunk(2)
        eps = torch.cat([(null + scale * (given - null))[:, :3], given[:, 3:]], dim=1)
        x = scheduler.step(eps, t, x).prev_sample
    want = x.permute(0, 2, 3, 1).numpy()
    assert relative_error(ours, want) < 1e-3
    assert relative_error(start, want) > 0.1


def model_shapes(config):
    return param_shapes(flatten_params(abstract_params(network_of(config))))


def shapes_of(make):
    with torch.device("meta"):
        return param_shapes(make().state_dict())


def check_by_shapes(shapes, layout, settings):
    """The config, once every name has a place and a shape."""
    assert dit_layout(shapes) == layout
    config = dit_config(shapes, layout, settings)
    ours = model_shapes(config)
    check_table(dit_table(ours, layout, config.model.patch_size), shapes, ours, position_shapes(config, shapes, layout))
    return config


def test_xl_2_by_shapes_alone():
    sizes = dict(depth=28, width=1152, num_heads=16, num_classes=1000)
    shapes = shapes_of(lambda: torch_dit.LEDiT(**sizes, position="sincos", conv="none"))
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 675_129_632
    config = check_by_shapes(shapes, "dit", {})
    assert config.model == model_preset("DiT-XL/2") and config.data.image_height == 256
    assert sum(int(np.prod(shape)) for shape in model_shapes(config).values()) == 675_129_632 - 256 * 1152


def test_xl_2_of_diffusers_by_shapes_alone():
    shapes = shapes_of(lambda: DiTTransformer2DModel(out_channels=8, sample_size=64))
    own = {
        name: shape for name, shape in shapes.items() if ".emb." not in name or name.startswith("transformer_blocks.0.")
    }
    assert len(shapes) - len(own) == 27 * 5
    config = check_by_shapes(own, "diffusers", {"num_attention_heads": 16, "sample_size": 64})
    assert config.model == model_preset("DiT-XL/2", timestep_frequency_shift=1.0) and config.data.image_height == 512


FAMILIES = {
    "DiT": small(),
    "NoPE": small("NoPE"),
    "LEDiT": small("LEDiT"),
    "refined": small("LEDiT", block_order="single_ca", scan="b", post_norm=True, causal_from_timestep=500),
    "depthwise": small("LEDiT", conv="depthwise", patch_size=4),
    "diffusers": small(timestep_frequency_shift=1.0),
}


@pytest.mark.parametrize("name, suffix", list(zip(FAMILIES, [".pt", ".safetensors"] * 3, strict=True)))
def test_there_and_back_bit_for_bit(tmp_path, name, suffix):
    config, state = FAMILIES[name], oracle(FAMILIES[name]).state_dict()
    state["final_layer.linear.bias"][:2] = torch.tensor([1e-42, -0.0])
    described = Config(model=config, train=dataclasses.replace(Config().train, dilation_probability=0.0)).to_dict()
    described["data"] |= {"image_height": 64, "image_width": 64}
    described["autoencoder"]["kind"] = "sd"
    tensors = collections.OrderedDict(state)
    text = json.dumps({"config": described, "step": 7})
    if suffix == ".pt":
        tensors._metadata = {"ledit_jax": text}
        torch.save(tensors, tmp_path / f"a{suffix}")
    else:
        safetensors.torch.save_file(state, tmp_path / f"a{suffix}", metadata={"ledit_jax": text})
    convert_to_checkpoint(tmp_path / f"a{suffix}", tmp_path / "b")
    assert load_weights(tmp_path / "b")[1].model == config and load_weights(tmp_path / "b")[2] == 7
    convert_to_torch(tmp_path / "b", tmp_path / f"c{suffix}")
    load = torch.load if suffix == ".pt" else safetensors.torch.load_file
    back = load(tmp_path / f"c{suffix}")
    assert set(back) == set(state)
    for key, tensor in state.items():
        assert torch.equal(back[key].view(torch.int32), tensor.view(torch.int32)), key
    peer = torch_dit.torch_peer(config, grid=GRID)
    peer.load_state_dict(back)  # strict: the metadata is in nobody's way
    convert_to_checkpoint(tmp_path / f"c{suffix}", tmp_path / "d")
    (first, *described), (second, *again) = load_weights(tmp_path / "b"), load_weights(tmp_path / "d")
    assert described == again
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_raw_weights_of_a_run_are_written_on_request(tmp_path):
    from tiny import tiny_config

    from ledit_jax.training.loop import train

    state = train(tiny_config(train=dict(num_steps=2)), tmp_path / "run")
    written = {}
    for weights in ("ema", "model"):
        convert_to_torch(tmp_path / "run", tmp_path / f"{weights}.pt", weights=weights)
        written[weights] = torch.load(tmp_path / f"{weights}.pt")["x_embedder.proj.bias"].numpy()
    np.testing.assert_array_equal(written["model"], state.params["patch_embed"]["bias"])
    np.testing.assert_array_equal(written["ema"], state.ema["patch_embed"]["bias"])
    assert (written["model"] != written["ema"]).any()


def test_ledit_of_someone_else_s(tmp_path):
    peer = oracle(small("LEDiT", post_norm=True))
    checkpoint = convert(peer.state_dict(), tmp_path)
    assert_params_are(checkpoint, peer)
    assert load_weights(checkpoint)[1].model == small("LEDiT", post_norm=True)


@pytest.fixture(scope="module")
def dit_checkpoint(tmp_path_factory):
    return convert(oracle(small()).state_dict(), tmp_path_factory.mktemp("dit"))


def start_of_fine_tuning(checkpoint, **fields):
    """(parameters, report, output on noise) of a LEDiT that starts from the checkpoint."""
    config = dataclasses.replace(load_weights(checkpoint)[1], model=small("LEDiT", **fields))
    params, report = init_from_checkpoint(checkpoint, config, jax.random.key(0))
    return report, jax.jit(make_apply(network_of(config)))(params, noise(3, 8, 8, 4), T, Y)


@pytest.mark.parametrize("order", ["sa", "sa_ca"])
def test_fine_tuning_starts_at_the_dit_without_positions(dit_checkpoint, order):
    """With plain attention that is the whole difference; with a causal scan, the scan is the only other one."""
    report, ours = start_of_fine_tuning(dit_checkpoint, block_order=order)
    peer = oracle(small())
    x = noise(3, 8, 8, 4)
    with_positions = run_torch(peer, x)
    peer.position, peer.kinds, peer.scan = "none", torch_scans.block_kinds(order, 2), "d"
    without = run_torch(peer, x)
    assert relative_error(ours, without) < 1e-5
    assert relative_error(with_positions, without) > 1e-2
    assert set(report.initialised) == {"conv/bias (32,)", "conv/kernel (3, 3, 32, 32)"} and report.dropped == ()
    every = flatten_params(abstract_params(network_of(load_weights(dit_checkpoint)[1])))
    assert {name.replace("/", ".") for name in report.loaded} == set(every)
    assert any("positional table" in note for note in report.notes)


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
        (lambda s: s.pop("pos_embed"), ConversionError, "missing .1.: pos_embed"),
        (
            lambda s: s.update({"final_layer.linear.bias": torch.zeros(32, dtype=torch.int8)}),
            CheckpointError,
            "holds int8",
        ),
    ],
    ids=["positions", "no positions", "integers"],
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


def test_preset_by_shapes_and_name():
    """The number of heads follows from the width; a NoPE needs its name, for its file looks like a DiT's cut short, and
    a LEDiT* its own: which blocks are causal leaves no trace."""
    for name in ("DiT-S/8", "DiT-B/4", "DiT-L/2", "LEDiT-B/2", "LEDiT*-B/2", "NoPE-S/2"):
        preset = model_preset(name, depth=2)
        shapes = shapes_of(lambda preset=preset: nn_peer(preset))
        config = dit_config(shapes, "dit", {}, name if name.startswith(("NoPE", "LEDiT*")) else None)
        assert config.model == preset


def nn_peer(config):
    names = "depth", "width", "num_heads", "patch_size", "num_classes", "position", "block_order", "conv", "post_norm"
    return torch_dit.LEDiT(**{name: getattr(config, name) for name in names}, grid=(8, 8))


def test_table_names_every_parameter_of_the_oracle():
    """And the oracle's own reading of the layouts agrees with the table's, leaf by leaf."""
    config = small("LEDiT", post_norm=True)
    peer = oracle(config)
    flat = flatten_params(nnx.to_pure_dict(nnx.state(ledit_params.ledit_peer(peer, config), nnx.Param)))
    state = {name: tensor.numpy() for name, tensor in peer.state_dict().items()}
    for row in dit_table(param_shapes(flat), "dit", 2):
        np.testing.assert_array_equal(row.join(state), flat[row.path], row.path)
        for name, tensor in row.split(np.asarray(flat[row.path])).items():
            np.testing.assert_array_equal(tensor, state[name], name)
