"""The loader's batches: shards, shuffling, flips, posterior samples, sources and conditions of others, refusals."""

import dataclasses

import numpy as np
import pytest
from data.loader_files import DIGITS, SD, assert_same_batch, indices, write_images, write_latents
from PIL import Image, ImageOps

from ledit_jax.config import DataConfig
from ledit_jax.data import LabelledSource, Source, UnreadableRecord
from ledit_jax.data.digits import Digits
from ledit_jax.errors import ConfigError, DataError


def test_batches_are_the_sources_images(open_loader):
    batch = next(open_loader(dataclasses.replace(DIGITS, flip=False)))
    assert batch["x"].shape == (8, 16, 24, 1) and batch["x"].dtype == np.float32
    assert batch["condition"].shape == (8,) and batch["condition"].dtype == np.int32
    source = Digits(16, 24, "train")
    known = {source[i]["image"].tobytes(): source[i]["label"] for i in range(1442)}
    as_bytes = np.round((batch["x"] + 1) * 127.5).astype(np.uint8)
    assert [known[image.tobytes()] for image in as_bytes] == batch["condition"].tolist()


def test_colour_images_are_cropped_to_size(open_loader, tmp_path):
    config = dataclasses.replace(write_images(tmp_path), image_channels=3)
    batch = next(open_loader(config, batch_size=40))
    assert batch["x"].shape == (40, 16, 8, 3)
    assert np.all(np.ptp(batch["x"], axis=(1, 2, 3)) == 0)  # each is still uniformly grey
    np.testing.assert_array_equal(np.sort(batch["condition"]), np.repeat(range(4), 10))


def test_jpegs_reach_the_batch_as_pil_and_adm_have_them_bit_for_bit(open_loader, tmp_path):
    """Open, RGB, halve by boxes, bicubic, cut, perhaps mirror, x / 127.5 - 1: written here with PIL and NumPy alone."""
    rng = np.random.default_rng(0)
    expected = []
    for i, (height, width) in enumerate([(90, 70), (33, 40), (17, 60), (64, 64)]):
        (tmp_path / str(i)).mkdir()
        file = tmp_path / str(i) / "p.jpg"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(file)
        image = Image.open(file).convert("RGB")
        while min(image.size) >= 32:
            image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
        scale = 16 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        left, top = (image.width - 16) // 2, (image.height - 16) // 2
        image = image.crop((left, top, left + 16, top + 16))
        mirrored = ImageOps.mirror(image)
        expected.append([np.asarray(p).astype(np.float32) / np.float32(127.5) - 1 for p in (image, mirrored)])
    config = DataConfig(source="image_folder", path=str(tmp_path), image_height=16, image_width=16)
    loader = open_loader(config, batch_size=4)
    seen = set()
    for _ in range(8):  # epochs
        batch = next(loader)
        for x, label in zip(batch["x"], batch["condition"], strict=True):
            (which,) = (k for k in range(2) if np.array_equal(x, expected[label][k]))
            seen.add((int(label), which))
    assert len(seen) == 8  # all four, each both ways


@pytest.mark.parametrize("count", [40, 41])
def test_shards_are_disjoint_and_complete(open_loader, tmp_path, count):
    config = write_images(tmp_path, count)
    shards = [open_loader(config, batch_size=5, process_index=i, process_count=2) for i in range(2)]
    for _ in range(2):  # epochs
        first, second = (indices(shard, 4) for shard in shards)
        np.testing.assert_array_equal(np.sort(np.concatenate([first, second])), np.arange(40))


def test_shuffles_differ_between_epochs_and_seeds(open_loader, tmp_path):
    config = write_images(tmp_path)
    epochs = [indices(loader, 5) for loader in (open_loader(config), open_loader(config, seed=1)) for _ in range(2)]
    for i, epoch in enumerate(epochs):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(40))
        assert all(np.mean(epoch == other) < 0.3 for other in [np.arange(40), *epochs[:i]])
    np.testing.assert_array_equal(indices(open_loader(config), 5), epochs[0])


def test_batches_run_on_over_the_end_of_an_epoch(open_loader, tmp_path):
    seen = indices(open_loader(write_images(tmp_path), batch_size=16), 5)  # 80 images, two epochs of 40
    np.testing.assert_array_equal(np.bincount(seen), np.full(40, 2))


def test_flips_are_mirror_images_drawn_afresh(open_loader):
    config = dataclasses.replace(DIGITS, split="test")
    plain = open_loader(dataclasses.replace(config, flip=False), batch_size=355)
    flipping = open_loader(config, batch_size=355)
    flips = []
    for _ in range(2):  # epochs
        x, y = next(plain)["x"], next(flipping)["x"]
        same, mirrored = (np.all(y == z, axis=(1, 2, 3)) for z in (x, x[:, :, ::-1]))
        assert np.all(same | mirrored)
        flips.append(dict(zip((z.tobytes() for z in x), mirrored & ~same, strict=True)))
        assert abs(np.mean(list(flips[-1].values())) - 0.5) < 0.1  # 3.8 standard deviations
    changed = np.mean([flips[0][key] != flips[1][key] for key in flips[0]])
    assert abs(changed - 0.5) < 0.1


def test_processes_do_not_share_their_randomness(open_loader):
    batches = []
    for i in range(2):
        arguments = {"batch_size": 100, "process_index": i, "process_count": 2}
        plain = next(open_loader(dataclasses.replace(DIGITS, flip=False), **arguments))["x"]
        batches.append(np.any(next(open_loader(DIGITS, **arguments))["x"] != plain, axis=(1, 2, 3)))
    assert 0.3 < np.mean(batches[0] == batches[1]) < 0.7  # 4 standard deviations


def test_latents_are_scaled_posterior_samples(open_loader, tmp_path):
    loader = open_loader(write_latents(tmp_path, logvar=np.log(4.0)), SD, batch_size=40)
    noise, flipped = [], []
    for _ in range(10):
        batch = next(loader)
        x = batch["x"].astype(np.float64) / 0.18215
        assert x.shape == (40, 2, 3, 4) and batch["x"].dtype == np.float32
        mean = x.mean(axis=(1, 2, 3), keepdims=True)
        flipped.append(mean < 0)
        noise.append((x - mean) * np.sqrt(24 / 23))  # the mean of 24 cells took a 24th of the variance
    assert abs(np.std(noise) - 2) < 0.06  # 9,600 draws: 3.9 standard deviations
    assert 0.4 < np.mean(flipped) < 0.6
    assert len(np.unique(np.concatenate(noise))) > 9_000


def test_latents_without_variance_are_the_means_times_scale(open_loader, tmp_path):
    config = write_latents(tmp_path, logvar=-100.0)
    for flip, sign in ((False, {1}), (True, {-1, 1})):
        batch = next(open_loader(dataclasses.replace(config, flip=flip), SD, batch_size=40))
        means = batch["x"][:, 0, 0, 0] / 0.18215
        np.testing.assert_allclose(np.sort(abs(means)), np.arange(1, 41), rtol=1e-6)
        np.testing.assert_array_equal((np.round(abs(means)) - 1) % 3, batch["condition"])
        assert set(np.sign(means)) == sign
    space = dataclasses.replace(SD, latents_mean=(0.0, 1.0, 2.0, 3.0), latents_std=(1.0, 2.0, 4.0, 0.5))
    x = next(open_loader(dataclasses.replace(config, flip=False), space, batch_size=40))["x"][:, 0, 0]
    means = x[:, :1] / SD.scale
    np.testing.assert_allclose(x, (means - space.latents_mean) * SD.scale / np.array(space.latents_std), rtol=1e-5)


def caption(record, rng):
    """Two arrays, neither of them a label."""
    first = record["image"][0, 0, 0] // 4
    return {"states": np.arange(6, dtype=np.float32).reshape(3, 2) * first, "mask": np.arange(3) < first % 4}


class Captioned:
    """Uniformly grey images of several sizes, and no labels at all."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        if not 0 <= index < 40:
            raise IndexError(index)
        if index == 11:
            raise UnreadableRecord("record 11")
        return {"image": np.full((20 + index % 5, 24, 1), 4 * index, np.uint8)}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_any_source_and_any_condition(open_loader, num_workers):
    """A pytree from each record, stacked; a source without classes, given from outside."""
    config = DataConfig(image_height=16, image_width=8, image_channels=1, num_workers=num_workers, max_bad_share=0.1)
    source = Captioned()
    loader = open_loader(config, source=source, condition=caption)
    assert loader.source is source and isinstance(source, Source) and not isinstance(source, LabelledSource)
    for _ in range(5):
        batch = next(loader)
        which = np.round((batch["x"][:, 0, 0, 0] + 1) * 127.5 / 4)
        states, mask = batch["condition"]["states"], batch["condition"]["mask"]
        assert states.dtype == np.float32 and mask.dtype == bool and batch["x"].shape == (8, 16, 8, 1)
        np.testing.assert_array_equal(states, which[:, None, None] * np.arange(6).reshape(3, 2))
        np.testing.assert_array_equal(mask, np.arange(3) < which[:, None] % 4)
    assert loader.bad_records == 1


def test_what_conditions_draws_nothing(open_loader):
    """The same images, flips and order, whatever is taken from the records."""
    labelled, plain = open_loader(DIGITS), open_loader(DIGITS, condition=lambda record, rng: None)
    for _ in range(3):
        batch, other = next(labelled), next(plain)
        np.testing.assert_array_equal(batch["x"], other["x"])
        assert other["condition"] is None


def test_latents_from_outside(open_loader, tmp_path):
    config = write_latents(tmp_path)
    stored = open_loader(config, SD)
    records = [stored.source[i] for i in range(40)]
    loader = open_loader(dataclasses.replace(config, path="", source="digits"), SD, source=records)
    for _ in range(6):
        assert_same_batch(next(loader), next(stored))


@pytest.mark.parametrize(
    "changes, arguments, message",
    [
        (
            {},
            {"batch_size": 500, "process_count": 3},
            "batch_size: 500 in each of 3 processes do not fit the 480 records",
        ),
        ({}, {"batch_size": 0}, "use 1 to 1442"),
        ({}, {"autoencoder": SD}, "data.source=digits holds images, and autoencoder.kind=sd trains on latents"),
        ({"image_channels": 4}, {}, "data.image_channels=4"),
        ({"split": "val"}, {}, "data.split='val'"),
    ],
)
def test_refusals_are_one_line(open_loader, changes, arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        open_loader(dataclasses.replace(DIGITS, **changes), **arguments)
    assert "\n" not in str(caught.value)


def test_random_crops_differ_between_epochs_and_centre_crops_do_not(open_loader, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "0").mkdir()
    Image.fromarray(rng.integers(0, 256, (60, 80), np.uint8)).save(tmp_path / "0" / "p.png")
    config = DataConfig(source="image_folder", path=str(tmp_path), image_height=16, image_width=24, image_channels=1)
    for share, expected in ((1.0, 1), (0.5, 6)):
        loader = open_loader(dataclasses.replace(config, flip=False, min_crop_share=share), batch_size=1)
        images = [next(loader)["x"] for _ in range(6)]
        assert images[0].shape == (1, 16, 24, 1)
        assert len({image.tobytes() for image in images}) == expected


def test_random_crops_are_refused_where_images_are_drawn_at_their_size(open_loader):
    with pytest.raises(ConfigError, match="min_crop_share=0.5 has no effect with data.source=digits: it is for image_"):
        open_loader(dataclasses.replace(DIGITS, min_crop_share=0.5))


def test_an_image_too_long_for_a_random_crop_says_so(open_loader, tmp_path):
    (tmp_path / "0").mkdir()
    Image.new("L", (200_000, 1)).save(tmp_path / "0" / "p.png")
    Image.new("L", (64, 64)).save(tmp_path / "0" / "q.png")
    config = DataConfig(source="image_folder", path=str(tmp_path), image_height=64, image_width=64, image_channels=1)
    with pytest.raises(DataError, match="an image cannot be cropped, since 200000x1 .* is too long"):
        next(open_loader(dataclasses.replace(config, min_crop_share=0.5), batch_size=2))
