"""Captions' states beside latents: stored whole, drawn by the loader, gone on with, refused where they do not fit."""

import dataclasses
import json
import logging
import pickle
import shutil

import ml_dtypes
import numpy as np
import pytest
from data.captioned_files import CAPTIONS, write_coco
from data.encoding_files import AUTOENCODER, SIZES, open_latents
from toy_text import ToyText

from ledit_jax.config import DataConfig
from ledit_jax.data import make_loader
from ledit_jax.data.caption_states import CaptionStates
from ledit_jax.data.encoding import encode_latents
from ledit_jax.data.latent_metadata import LatentMetadata, read_metadata
from ledit_jax.data.latent_records import MOMENTS, decode_record, encode_record
from ledit_jax.errors import ConfigError, DataError, OutputError
from ledit_jax.models.condition import TextStates

TEXT = ToyText()
SIZES = SIZES | dict(shard_size=2)
TEXTS = [[" ".join(text.split()) for text in reversed(texts)] for texts in CAPTIONS.values()]


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, coco, encoder):
    folder = tmp_path_factory.mktemp("latents") / "whole"
    encode_latents(coco, encoder, folder, **SIZES, captions=CaptionStates(TEXT))
    return folder


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_record_layout_is_as_documented(dtype):
    moments = np.random.default_rng(0).standard_normal((4, 2, 3, 4)).astype(np.float32)
    states = TEXT(["a", "ü"]).astype(dtype)
    one = dict(zip(MOMENTS, moments, strict=True)) | {"label": 0, "captions": ["a", "ü"], "caption_states": states}
    data = encode_record(one)
    assert data[:4] == b"LAT2"
    code = 0 if dtype == np.float32 else 1
    np.testing.assert_array_equal(np.frombuffer(data[4:40], "<u4"), [2, 3, 4, 0, 2, 5, 8, code, 4])
    assert data[40:424] == moments.tobytes() and data[424:-4] == states.tobytes() and data[-4:].decode() == "a\nü"
    read = decode_record(data)
    assert read["captions"] == ["a", "ü"] and read["caption_states"].dtype == dtype and read["label"] == 0
    for name in MOMENTS:
        np.testing.assert_array_equal(read[name], one[name])
    np.testing.assert_array_equal(read["caption_states"], states)
    for broken in (data[:30], data[:-1], data + b"\0", data[:32] + b"\7" + data[33:], data[:-2] + b"\na"):
        with pytest.raises(ValueError, match=r"latent record"):
            decode_record(broken)
    with pytest.raises(ValueError, match=r"do not fit 1 captions"):
        encode_record(one | {"captions": ["a"]})


def test_all_captions_are_stored_and_the_empty_one_beside(whole, coco):
    latents = pickle.loads(pickle.dumps(open_latents(whole)))
    assert latents.text_id == TEXT.fingerprint and latents.num_classes == 1 and len(latents) == 3
    np.testing.assert_array_equal(latents.empty_caption, TEXT([""])[0])
    for record, texts in zip(latents, TEXTS, strict=True):
        assert record["captions"] == texts and record["caption_states"].dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(record["caption_states"], TEXT(texts).astype(ml_dtypes.bfloat16))
    metadata = read_metadata(str(whole))
    assert (metadata.text, metadata.text_dtype) == ("toy", "bfloat16")
    assert (metadata.text_length, metadata.text_width, metadata.bytes_per_caption) == (5, 8, 80)
    assert metadata.source == f"coco {coco.path}"


def test_sizes_are_said_before_it_starts_and_a_rerun_writes_what_is_missing(coco, encoder, whole, tmp_path, caplog):
    captions = CaptionStates(TEXT)
    with caplog.at_level(logging.INFO, "ledit_jax"):
        encode_latents(coco, encoder, tmp_path, **SIZES, captions=captions, part=(0, 2))
    assert "3.0 KiB of moments and 0.1 KiB for each of about 2.0 captions (5 x 8 in bfloat16): 3 images" in caplog.text
    report = encode_latents(coco, encoder, tmp_path, **SIZES, captions=captions)
    assert report.encoded == 1 and report.metadata == read_metadata(str(whole))
    got = open_latents(tmp_path)
    for i, expected in enumerate(open_latents(whole)):
        assert got[i]["captions"] == expected["captions"]
        for name in (*MOMENTS, "caption_states"):
            np.testing.assert_array_equal(got[i][name], expected[name])
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert (plan["text_id"], plan["text_dtype"]) == ("toy-0", "bfloat16")


@pytest.mark.parametrize(
    "captions, message",
    [
        (CaptionStates(ToyText(seed=1)), r"text_id=toy-0 there, toy-1 here"),
        (CaptionStates(TEXT, "float32"), r"text_dtype=bfloat16 there, float32 here"),
        (None, r"text_id=toy-0 there, None here"),
    ],
    ids=["encoder", "dtype", "none"],
)
def test_another_encoder_or_dtype_is_refused(coco, encoder, whole, captions, message):
    with pytest.raises(OutputError, match=message):
        encode_latents(coco, encoder, whole, **SIZES, captions=captions)


def test_captions_of_a_source_without_any_are_refused(data, encoder, tmp_path):
    with pytest.raises(ConfigError, match=r"data.source=image_folder has no captions for text_encoder=toy"):
        encode_latents(data, encoder, tmp_path / "a", **SIZES, captions=CaptionStates(TEXT))
    with pytest.raises(ConfigError, match=r"text_dtype=float16 is unknown: use float32 or bfloat16"):
        CaptionStates(TEXT, "float16")
    assert not (tmp_path / "a").exists()


def loader_of(folder):
    data = DataConfig(source="latents", path=str(folder), image_height=16, image_width=12)
    condition = TextStates(TEXT.length, TEXT.width).from_record
    return make_loader(data, AUTOENCODER, condition=condition, batch_size=3, seed=4)


def test_a_caption_is_drawn_at_each_visit_and_a_resumed_loader_draws_the_same(whole):
    loader, everything = loader_of(whole), np.concatenate([record["caption_states"] for record in open_latents(whole)])
    seen = set()
    for _ in range(12):
        states = next(loader)["condition"]["states"]
        assert states.shape == (3, 5, 8) and states.dtype == np.float32
        for state in states:
            (place,) = np.flatnonzero((everything.astype(np.float32) == state).all((1, 2)))
            seen.add(int(place))
    assert seen == set(range(6)), "a caption was never drawn"
    state, following = loader.get_state(), next(loader)
    assert state["text"] == "toy-0"
    again = loader_of(whole)
    again.set_state(state)
    batch = next(again)
    np.testing.assert_array_equal(batch["x"], following["x"])
    np.testing.assert_array_equal(batch["condition"]["states"], following["condition"]["states"])
    with pytest.raises(ConfigError, match=r"text=toy-1, and this run has text=toy-0"):
        again.set_state(state | {"text": "toy-1"})
    loader.close()
    again.close()


def test_a_damaged_or_missing_empty_caption_is_refused(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "empty_caption.npy"
    np.save(file, np.zeros((5, 7), np.float32))
    with pytest.raises(DataError, match=r"empty_caption.npy: .* is float32 \[5, 7\], and \[5, 8\] is needed"):
        open_latents(tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=r"empty_caption.npy is damaged or cut short .*: encode the folder anew"):
        open_latents(tmp_path)


def test_folders_without_captions_have_the_fingerprint_that_earlier_versions_gave_them():
    metadata = LatentMetadata("test-vae", 0.18215, 32, 48, 8, 4, "noise", num_classes=5, count=6)
    assert metadata.fingerprint == "7e68c196cbdf3f50"
    assert dataclasses.replace(metadata, text="elsewhere", text_id="b").fingerprint != metadata.fingerprint
