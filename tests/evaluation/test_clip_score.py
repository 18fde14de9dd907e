"""CLIP score against transformers' CLIPModel and its image processor; the vectors are kept; prompts beside samples."""

import numpy as np
import pytest
import torch
from oracles import tiny_clip
from oracles.tiny_clip import transformers
from PIL import Image
from script_runs import assert_one_line, run

from ledit_jax.convert.read import convert_to_checkpoint
from ledit_jax.errors import ConfigError, DataError, OutputError
from ledit_jax.evaluation import pieces
from ledit_jax.evaluation.clip_score import ClipScorer, prepare_images
from ledit_jax.evaluation.images import open_images
from ledit_jax.evaluation.prompts import read_prompts
from ledit_jax.weights import load_clip

PROMPTS = ["a red cat", "", "of", "is is is", "Café"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    there = tmp_path_factory.mktemp("clip")
    tiny_clip.clip_model().save_pretrained(there / "clip")
    tiny_clip.write_tokenizer(there / "clip")
    convert_to_checkpoint(there / "clip", there / "ours")
    return there / "ours"


@pytest.fixture(scope="module")
def scorer(checkpoint):
    return ClipScorer(*load_clip(checkpoint), batch_size=2)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    path = tmp_path_factory.mktemp("samples") / "x.npz"
    smooth = np.random.default_rng(0).integers(0, 256, (5, 4, 5, 3), dtype=np.uint8).repeat(9, 1).repeat(9, 2)
    np.savez(path, smooth, prompts=np.array(PROMPTS))
    return path


def processor(size):
    """The one that works by PIL; the other one needs torchvision."""
    return transformers.models.clip.image_processing_pil_clip.CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )


@pytest.mark.parametrize("shape", [(24, 24), (31, 57), (57, 30), (11, 17), (301, 224), (25, 24)])
def test_images_are_prepared_as_transformers_does(shape):
    images = np.random.default_rng(sum(shape)).integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    want = processor(24)([Image.fromarray(image) for image in images], return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(prepare_images(images, 24).transpose(0, 3, 1, 2), want, atol=1e-5)


def test_scores_equal_transformers(scorer, samples, tmp_path):
    model = tiny_clip.clip_model()
    folder = tiny_clip.write_tokenizer(tmp_path)
    images = [Image.fromarray(image) for image in np.load(samples)["arr_0"]]
    pixels = torch.from_numpy(processor(24)(images, return_tensors="np")["pixel_values"])
    ids = torch.tensor(tiny_clip.their_ids(folder, PROMPTS))
    with torch.no_grad():
        logits = model(input_ids=ids, pixel_values=pixels).logits_per_image / model.logit_scale.exp()
    cosines = logits.numpy().diagonal()
    assert cosines.min() < -0.01 and cosines.max() > 0.01  # both sides of the clip
    scores = scorer(open_images(str(samples)), PROMPTS)
    np.testing.assert_allclose(scores, 100 * np.maximum(cosines, 0), atol=1e-3)


def test_vectors_are_kept_and_gone_on_with(scorer, samples, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 2)
    images, run_images = open_images(str(samples)), scorer._images._run
    whole = scorer(images, PROMPTS)
    calls = []

    def counted(*arguments):
        calls.append(len(calls))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run_images(*arguments)

    monkeypatch.setattr(scorer._images, "_run", counted)
    with pytest.raises(KeyboardInterrupt):
        scorer(images, PROMPTS, tmp_path / "kept")
    np.testing.assert_array_equal(scorer(images, PROMPTS, tmp_path / "kept"), whole)
    assert len(calls) == 4  # one piece was kept, one was lost, two were left
    with pytest.raises(OutputError, match="begun with other settings"):
        scorer(images, PROMPTS[::-1], tmp_path / "kept")
    with pytest.raises(DataError, match="holds 5 images, and 4 prompts are given"):
        scorer(images, PROMPTS[:4])


def test_prompts_lie_with_the_samples(samples, tmp_path):
    assert read_prompts(samples) == PROMPTS
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS) + "\n", encoding="utf-8", newline="\r\n")
    assert read_prompts(tmp_path) == read_prompts(samples, tmp_path / "prompts.txt") == PROMPTS
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    np.savez(tmp_path / "none.npz", np.zeros((1, 8, 8, 3), np.uint8))
    np.savez(tmp_path / "numbers.npz", np.zeros((1, 8, 8, 3), np.uint8), prompts=np.zeros(3))
    for error, path, file, message in (
        (ConfigError, tmp_path / "none.npz", None, "holds no prompts: give a text of one prompt a line"),
        (ConfigError, samples, tmp_path / "missing.txt", "missing.txt holds no prompts"),
        (DataError, samples, tmp_path / "bad.txt", "cannot be read"),
        (DataError, tmp_path / "numbers.npz", None, "prompts is float64"),
    ):
        with pytest.raises(error, match=message):
            read_prompts(path, file)


def test_the_script_scores_without_a_reference(checkpoint, scorer, samples, tmp_path):
    flags = [f"--samples={samples}", f"--clip={checkpoint}", "--batch_size=2"]
    result = run("evaluate.py", *flags, f"--json={tmp_path / 'x.json'}")
    assert result.returncode == 0, result.stderr
    mean = scorer(open_images(str(samples)), PROMPTS).mean()
    assert "CLIP ↑" in result.stdout and f"{mean:.2f}" in result.stdout
    assert f'"clip_score": {mean:.3f}'[:-1] in (tmp_path / "x.json").read_text()
    assert_one_line(run("evaluate.py", flags[0]), "--reference is not given")
