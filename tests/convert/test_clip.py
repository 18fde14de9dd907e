"""CLIP's towers and tokenizer against transformers', by way of the files that people have and the converter."""

import json
import logging

import jax
import numpy as np
import pytest
import safetensors.torch
import torch
from flax import nnx
from oracles import tiny_clip
from oracles.tiny_clip import END, START, STRANGE

from ledit_jax.config import TextConfig
from ledit_jax.convert.clip import clip_config, clip_table
from ledit_jax.convert.read import convert_to_checkpoint
from ledit_jax.convert.tables import check_table, flatten_params, param_shapes
from ledit_jax.convert.tokenizer import read_vocabulary
from ledit_jax.convert.write import convert_to_torch
from ledit_jax.data.caption_states import TextEncoder
from ledit_jax.errors import CheckpointError, ConfigError, DamagedCheckpoint, DataError
from ledit_jax.models import count_params
from ledit_jax.models.clip_vision import CLIP, CLIPConfig
from ledit_jax.models.tokenizer import CLIPTokenizer
from ledit_jax.weights import load_clip, load_text_encoder, load_weights, make_text_encoder

PROMPTS = ["", "a red cat", "of", "a cat " * 40, "Café"]


def states(model, ids) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(ids)).last_hidden_state.numpy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A text encoder as transformers saves it, in a pipeline's folder beside the tokenizer's."""
    pipeline = tmp_path_factory.mktemp("pipeline")
    tiny_clip.text_model().save_pretrained(pipeline / "text_encoder")
    tiny_clip.write_tokenizer(pipeline / "tokenizer")
    return pipeline


@pytest.fixture(scope="module")
def checkpoint(folder):
    convert_to_checkpoint(folder, folder / "ours")
    return folder / "ours"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(transformers' model with both towers, its folder, our checkpoint)."""
    model, there = tiny_clip.clip_model("gelu"), tmp_path_factory.mktemp("clip")
    model.save_pretrained(there / "clip")
    tiny_clip.write_tokenizer(there / "clip")
    convert_to_checkpoint(there / "clip", there / "ours")
    return model, there / "clip", there / "ours"


@pytest.mark.parametrize(
    "config", [{}, {"pad_token": "!"}, {"pad_token": {"content": "<|endoftext|>", "__type": "AddedToken"}}]
)
def test_ids_equal_transformers(tmp_path, config):
    folder = tiny_clip.write_tokenizer(tmp_path / "files", **config)
    theirs = tiny_clip.transformers.CLIPTokenizer.from_pretrained(folder)
    theirs.save_pretrained(tmp_path / "one")  # as tokenizer.json
    want = tiny_clip.their_ids(folder, STRANGE)
    from_files, from_one = read_vocabulary(folder), read_vocabulary(tmp_path / "one")
    assert not (tmp_path / "one" / "vocab.json").exists() and from_files.fingerprint == from_one.fingerprint
    ids, cut = CLIPTokenizer(from_files, 77)(STRANGE)
    assert ids.tolist() == want
    assert {STRANGE[i][:3]: cut[i] for i in np.flatnonzero(cut)} == {"xxx": 425, "aaa": 2, "a c": 5}
    assert (ids[np.flatnonzero(cut), -1] == END).all()


def test_special_tokens_of_older_files(tmp_path):
    folder = tiny_clip.write_tokenizer(tmp_path, pad_token="<|endoftext|>")
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "!"}))
    ids, _ = CLIPTokenizer(read_vocabulary(folder), 77)(["a cat"])
    assert ids.tolist() == tiny_clip.their_ids(folder, ["a cat"]) and ids[0, -1] == 0
    (folder / "merges.txt").write_text("#version: 0.2\n# #\n", encoding="utf-8")
    assert list(read_vocabulary(folder).merges) == ["# #"]


@pytest.mark.parametrize(
    ("prefix", "activation"), [("", "quick_gelu"), ("text_model.", "gelu"), ("text_model.", "gelu_pytorch_tanh")]
)
def test_states_equal_transformers(tmp_path, prefix, activation):
    model = tiny_clip.text_model(activation)
    tiny_clip.write_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_dict()))
    state = {prefix + name: tensor.clone() for name, tensor in model.state_dict().items()}
    state[f"{prefix}embeddings.position_ids"] = torch.arange(77)[None]
    torch.save(state, tmp_path / "pytorch_model.bin")
    convert_to_checkpoint(tmp_path / "pytorch_model.bin", tmp_path / "ours")
    encoder = load_text_encoder(tmp_path / "ours", batch_size=2)
    assert isinstance(encoder, TextEncoder) and (encoder.length, encoder.width) == (77, 32)
    want = states(model, tiny_clip.their_ids(tmp_path, PROMPTS))
    assert np.ptp(want) > 1
    np.testing.assert_allclose(encoder(PROMPTS), want, atol=1e-5, rtol=0)


def test_there_and_back(folder, checkpoint, tmp_path):
    expected = safetensors.torch.load_file(folder / "text_encoder" / "model.safetensors")
    for suffix, load in ((".pt", torch.load), (".safetensors", safetensors.torch.load_file)):
        convert_to_torch(checkpoint, tmp_path / f"back{suffix}")
        back = {name.removeprefix("text_model."): tensor for name, tensor in load(tmp_path / f"back{suffix}").items()}
        expected = {name.removeprefix("text_model."): tensor for name, tensor in expected.items()}
        assert set(back) == set(expected) and all(torch.equal(back[name], expected[name]) for name in back)
        convert_to_checkpoint(tmp_path / f"back{suffix}", tmp_path / suffix)  # settings and tokenizer travel along
        assert load_text_encoder(tmp_path / suffix).fingerprint == load_text_encoder(checkpoint).fingerprint


def test_both_towers_equal_transformers(whole):
    model, folder, checkpoint = whole
    clip, tokenizer, fingerprint = load_clip(checkpoint)
    graphdef, params = nnx.split(clip, nnx.Param)

    @jax.jit
    def run(params, images, tokens):
        clip = nnx.merge(graphdef, params)
        return clip.vision(images), clip.embed_images(images), clip.embed_texts(tokens, tokenizer.end)

    images = np.random.default_rng(0).normal(size=(3, 24, 24, 3)).astype(np.float32)
    pixels, ids = torch.from_numpy(images).permute(0, 3, 1, 2), torch.tensor(tiny_clip.their_ids(folder, PROMPTS))
    with torch.no_grad():
        pooled = model.vision_model(pixels).pooler_output.numpy()
        out = model(input_ids=ids, pixel_values=pixels)
    vectors = run(params, images, tokenizer(PROMPTS)[0])
    for ours, theirs in zip(vectors, (pooled, out.image_embeds.numpy(), out.text_embeds.numpy()), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)
    assert len(fingerprint) == 16


def test_sizes_of_vit_l_14():
    """By shapes alone: the published count, and transformers' names."""
    config = CLIPConfig()
    like = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: CLIP(config, nnx.Rngs(0))), nnx.Param))
    assert count_params(like["text"]) == 123_060_480 and count_params(like) == 427_616_513
    text = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12)
    vision = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14)
    with torch.device("meta"):
        theirs = tiny_clip.transformers.CLIPModel(
            tiny_clip.transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=768)
        )
    ours, found = param_shapes(flatten_params(like)), param_shapes(theirs.state_dict())
    check_table(clip_table(ours, config.vision.patch_size), found, ours)
    assert clip_config(found, {"text_config": text, "vision_config": vision}) == config


def test_both_towers_there_and_back(whole, tmp_path):
    model, _, checkpoint = whole
    convert_to_torch(checkpoint, tmp_path / "back.pt")
    back, expected = torch.load(tmp_path / "back.pt"), model.state_dict()
    assert set(back) == set(expected) and all(torch.equal(back[name], expected[name]) for name in back)
    convert_to_checkpoint(tmp_path / "back.pt", tmp_path / "again")
    assert load_clip(tmp_path / "again")[2] == load_clip(checkpoint)[2]


def test_a_text_encoder_within_both_towers(whole):
    model, folder, checkpoint = whole
    want = states(model.text_model, tiny_clip.their_ids(folder, PROMPTS))
    np.testing.assert_allclose(load_text_encoder(checkpoint, batch_size=4)(PROMPTS), want, atol=1e-5, rtol=0)


def test_a_cut_is_said_and_neighbours_change_nothing(checkpoint, caplog):
    encoder = load_text_encoder(checkpoint, batch_size=2)
    with caplog.at_level(logging.WARNING):
        together = encoder(["a cat", *["x" * 500] * 5])
    lines = [record.getMessage() for record in caplog.records]
    assert (
        len(lines) == 4 and "the last 425 of it are cut off" in lines[0] and "2 more prompts are too long" in lines[3]
    )
    np.testing.assert_array_equal(together[:1], encoder(["a cat"]))
    assert encoder([]).shape == (0, 77, 32)


def test_the_encoder_of_a_config(checkpoint):
    made = make_text_encoder(TextConfig("clip", str(checkpoint), width=32))
    assert made.name == "clip" and made.fingerprint == load_text_encoder(checkpoint).fingerprint
    for text, message in (
        (TextConfig("clip", str(checkpoint)), "text.width=768, and the encoder of text.checkpoint=.* 77 states of 32"),
        (TextConfig("clip"), "text.checkpoint is empty"),
        (TextConfig(), "text.encoder=none: this model takes no prompts"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_text_encoder(text)


def test_tokenizers_that_do_not_belong(folder, tmp_path):
    def refuse(message, error=CheckpointError, **changed):
        model = tiny_clip.text_model(**changed)
        model.save_pretrained(tmp_path / "weights")
        with pytest.raises(error, match=message) as caught:
            convert_to_checkpoint(tmp_path / "weights", tmp_path / "ours", tokenizer=tokenizer)
        assert "\n" not in str(caught.value) and not (tmp_path / "ours").exists()

    tokenizer = None
    refuse("tokenizer.json, or vocab.json with merges.txt, has to lie in")
    tokenizer = folder / "tokenizer"
    refuse("it has ids up to 521, and the encoder 500 tokens", vocab_size=500, bos_token_id=1, eos_token_id=2)
    refuse("its eos_token_id is 521, and the encoder's 520", eos_token_id=START)
    refuse("its bos_token_id is 520, and the encoder's 3", bos_token_id=3)
    tokenizer = tiny_clip.write_tokenizer(tmp_path / "tokenizer")
    (tokenizer / "merges.txt").write_text("#version: 0.2\nq z\n")
    refuse("merges do not fit its vocabulary", DataError)
    (tokenizer / "vocab.json").write_text("{}")
    refuse("has no token <|startoftext|>: it is no CLIP tokenizer's", DataError)


def test_special_tokens_that_nobody_uses(tmp_path):
    """0 and 2 are what OpenAI's own files say."""
    tiny_clip.text_model(bos_token_id=0, eos_token_id=2).save_pretrained(tmp_path)
    tiny_clip.write_tokenizer(tmp_path)
    convert_to_checkpoint(tmp_path, tmp_path / "ours")


def test_bad_input(folder, checkpoint, whole, tmp_path):
    with pytest.raises(ConfigError, match="is CLIP, and model, num_heads"):
        convert_to_checkpoint(folder / "text_encoder", tmp_path / "ours", num_heads=4)
    state = safetensors.torch.load_file(folder / "text_encoder" / "model.safetensors")
    state = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    state.pop("final_layer_norm.bias")
    safetensors.torch.save_file(state | {"head.weight": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"final_layer_norm\.bias.*head\.weight"):
        convert_to_checkpoint(tmp_path / "x.safetensors", tmp_path / "ours", tokenizer=folder / "tokenizer")
    with pytest.raises(CheckpointError, match="is a text encoder's, and CLIP's is needed"):
        load_clip(checkpoint)
    with pytest.raises(CheckpointError, match="holds no ema, only text"):
        load_weights(checkpoint)


def test_a_tokenizer_that_was_changed_afterwards(folder, tmp_path):
    convert_to_checkpoint(folder, tmp_path / "ours")
    path = tmp_path / "ours" / "0" / "tokenizer" / "metadata"
    path.write_text(path.read_text().replace('"re d</w>"', '"re  </w>"'))
    with pytest.raises(DamagedCheckpoint, match="its tokenizer is not as it was written"):
        load_text_encoder(tmp_path / "ours")
