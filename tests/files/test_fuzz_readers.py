"""Files of others, fuzzed: whatever they hold gives a result or a LEDiTError of one line."""

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import tiny_config

from experiments.study.photos import split_images
from experiments.study.results import read_results
from ledit_jax.config import Config
from ledit_jax.convert.files import open_tensors
from ledit_jax.data.image_folder import ImageFolder
from ledit_jax.data.latent_metadata import read_metadata
from ledit_jax.errors import LEDiTError
from ledit_jax.evaluation.images import open_images
from ledit_jax.files.readers import check_array, read_npy, read_npz

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
FUZZ = settings(
    max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def attempt(read):
    try:
        read()
    except LEDiTError as error:
        assert "\n" not in str(error)


def replaced(values, places, data):
    """Nested values with one of them replaced, removed or joined by a stranger."""
    keys = data.draw(st.sampled_from(places))
    values = json.loads(json.dumps(values))
    inner = values
    for key in keys[:-1]:
        inner = inner[key]
    kind = data.draw(st.sampled_from(["replace", "remove", "add"]))
    if kind == "remove":
        del inner[keys[-1]]
    elif kind == "add":
        inner[data.draw(st.text(max_size=4))] = data.draw(JSON)
    else:
        inner[keys[-1]] = data.draw(JSON | st.integers() | st.floats() | st.just(10**400) | st.just(2**63))
    return values


def paths(values):
    for key, value in values.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, *inner) for inner in paths(value))


def damaged(data, whole):
    """Bytes with some of them changed, cut or doubled."""
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["set", "cut", "insert"]))
        if kind == "set":
            content[place] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
        elif kind == "insert":
            content[place:place] = data.draw(st.binary(min_size=1, max_size=8))
        elif place:
            del content[place:]
    return bytes(content)


@FUZZ
@given(st.data())
def test_fuzz_config_values(data):
    config = tiny_config().to_dict()
    attempt(lambda: Config.from_dict(replaced(config, list(paths(config)), data)))


@FUZZ
@given(st.data())
def test_fuzz_json_files(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "json"
    folder.mkdir(exist_ok=True)
    known = {
        "vae": "x", "scale": 0.18, "height": 8, "width": 8, "downsample": 8, "latent_channels": 4, "source": "y",
        "num_classes": 2, "count": 3,
    }  # fmt: skip
    values = data.draw(JSON) if data.draw(st.booleans()) else replaced(known, list(paths(known)), data)
    text = json.dumps(values).encode()
    content = data.draw(st.just(text) | st.binary(max_size=20) | st.just(damaged(data, text)))
    for name in ("metadata.json", "config.json", "results.json", "diffusion_pytorch_model.safetensors.index.json"):
        (folder / name).write_bytes(content)
    attempt(lambda: read_metadata(str(folder)))
    attempt(lambda: read_results(folder / "results.json"))
    attempt(lambda: open_tensors(folder))


@FUZZ
@given(st.data())
def test_fuzz_npz(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.npz"
    arrays = {"arr_0": IMAGES, "num_samples": np.int64(3), "size": np.array([4, 4])}
    stream = io.BytesIO()
    data.draw(st.sampled_from([np.savez, np.savez_compressed]))(stream, **arrays)
    path.write_bytes(damaged(data, stream.getvalue()))
    attempt(lambda: list(open_images(str(path)).batches(2)))
    attempt(lambda: read_npz(path, lambda name, header: check_array(path, name, header, (None,), "iu") is None))


@FUZZ
@given(st.text(max_size=40) | st.sampled_from(["{'descr': '|u1', 'fortran_order': False, 'shape': (%s,)}"]), st.text())
def test_fuzz_headers_of_arrays(tmp_path_factory, head, inner):
    path = tmp_path_factory.getbasetemp() / "fuzz.npy"
    text = head.replace("%s", inner).encode("latin1", "replace")
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + b"abc")
    attempt(lambda: read_npy(path, (3,), "uint8"))


@FUZZ
@given(st.data())
def test_fuzz_safetensors(tmp_path_factory, data):
    from safetensors.numpy import save

    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    whole = save({"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.int64)}, {"ledit_jax": '{"step": 1}'})
    path.write_bytes(damaged(data, whole))

    def read():
        tensors = open_tensors(path)
        tensors.read(tensors.shapes)

    attempt(read)


@FUZZ
@given(st.data())
def test_fuzz_zips_of_images(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("zip")
    stream = io.BytesIO()
    with zipfile.ZipFile(
        stream, "w", data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    ) as archive:
        for index in range(12):
            archive.writestr(f"class{index % 2}/{index}.ppm", b"P6 2 2 255 " + bytes(range(12)))
    (folder / "x.zip").write_bytes(damaged(data, stream.getvalue()))
    attempt(lambda: split_images(folder / "x.zip", folder / "images"))


@FUZZ
@given(st.data())
def test_fuzz_tables_of_labels(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "table"
    folder.mkdir(exist_ok=True)
    content = data.draw(st.binary(max_size=30) | st.just(damaged(data, b"file,label\na.png,1\nb.png,0\n")))
    Path(folder / "labels.csv").write_bytes(content)
    attempt(lambda: ImageFolder(str(folder)))
