"""Files of others: JSON of the wrong shape, archives that lie, and whatever a fuzz makes of them."""

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import tiny_config

from experiments.study.photos import split_images
from experiments.study.results import read_results
from ledit_jax.config import Config
from ledit_jax.convert.files import open_tensors
from ledit_jax.data.image_folder import ImageFolder
from ledit_jax.data.latents import read_metadata
from ledit_jax.errors import DataError, LEDiTError
from ledit_jax.evaluation.images import open_images
from ledit_jax.evaluation.statistics import measure_set
from ledit_jax.files.readers import check_array, read_json, read_npy, read_npz

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)


def npy(shape, descr="|u1", data=b"", fortran=False):
    """The bytes of a .npy whose header says what one likes."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": fortran, "shape": shape})
    return stream.getvalue() + data


def write_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def encrypt(path):
    """Sets the flag of encryption in the directory and in each member's own header."""
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        place = data.find(mark)
        while place >= 0:
            data[place + offset] |= 1
            place = data.find(mark, place + 4)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "content, fields, message",
    [
        ("[" * 100_000, {}, "is damaged or no JSON"),
        ('{"a": 1}', {"a": str}, "a is a int, and a str is needed"),
        ('{"a": true}', {"a": int}, "a is a bool, and a int is needed"),
        ('{"a": null}', {"a": (int, float)}, "a is a NoneType, and a int or float is needed"),
        ("{}", {"a": int}, "lacks a"),
    ],
)
def test_json_of_another_shape_is_refused(tmp_path, content, fields, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_json(tmp_path / "x.json", fields=fields)


def test_a_whole_number_passes_for_a_float_and_null_may_be_a_type(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1, "b": null}')
    assert read_json(tmp_path / "x.json", fields={"a": float, "b": (int, None)}) == {"a": 1, "b": None}


BAD_ARRAYS = {
    "negative shape": npy((-3, 4, 4, 3), data=IMAGES.tobytes()),
    "more announced than there is": npy((10**12, 4, 4, 3), data=IMAGES.tobytes()),
    "less announced than there is": npy((1, 4, 4, 3), data=IMAGES.tobytes()),
    "objects": npy((3,), "|O", b"x" * 24),
    "no header": b"\x93NUMPY\x01\x00\xff\xff",
    "no array": b"",
    "version 9": b"\x93NUMPY\x09\x00" + npy((3,))[8:],
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_arrays_that_lie_are_refused(tmp_path, case):
    path = write_zip(tmp_path / "x.npz", {"arr_0.npy": BAD_ARRAYS[case], "mu.npy": BAD_ARRAYS[case]})
    (tmp_path / "x.npy").write_bytes(BAD_ARRAYS[case])
    for read in (
        lambda: read_npz(path, lambda name, header: True),
        lambda: read_npy(tmp_path / "x.npy", (None, None, None, None), "uint8"),
        lambda: open_images(str(path)),
        lambda: measure_set(str(path), pytest.fail),
    ):
        with pytest.raises(DataError, match=r"x.np[zy]"):
            read()


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_that_numpy_does_not_write_is_refused(tmp_path, compression):
    path = write_zip(tmp_path / "x.npz", {"arr_0.npy": npy(IMAGES.shape, data=IMAGES.tobytes())}, compression)
    with pytest.raises(DataError, match="compressed in a way"):
        open_images(str(path))


def test_encrypted_members_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", IMAGES)
    encrypt(tmp_path / "x.npz")
    for read in (
        lambda: open_images(str(tmp_path / "x.npz")),
        lambda: measure_set(str(tmp_path / "x.npz"), pytest.fail),
    ):
        with pytest.raises(DataError, match="arr_0 is encrypted"):
            read()


def test_a_bomb_is_not_unpacked(tmp_path):
    """256 MiB of zeros in 256 KiB; statistics and features of other sizes than Inception's are not read."""
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("mu.npy", "w") as file:
        file.write(npy((2**28,)))
        for _ in range(16):
            file.write(bytes(2**24))
    with pytest.raises(DataError, match=r"mu is uint8 \[268435456\]"):
        measure_set(str(tmp_path / "x.npz"), pytest.fail)
    with pytest.raises(DataError, match="0.2 GiB, of which 0.1 are read"):
        read_npz(tmp_path / "x.npz", lambda name, header: True, most_bytes=2**27)


@pytest.mark.parametrize(
    "fault, message",
    [
        ("negative", "negative variances"),
        ("not symmetric", "not symmetric"),
        ("too large", "larger than the variances"),
    ],
)
def test_a_sigma_that_is_no_covariance_is_refused(tmp_path, fault, message):
    """-I gave FID 0.00."""
    sigma = np.eye(2048)
    if fault == "negative":
        sigma = -sigma
    else:
        sigma[0, 1] = 5
        sigma[1, 0] = 5 if fault == "too large" else 0
    np.savez(tmp_path / "x.npz", mu=np.zeros(2048), sigma=sigma)
    with pytest.raises(DataError, match=message):
        measure_set(str(tmp_path / "x.npz"), pytest.fail)


def test_real_covariances_pass_also_in_float32(tmp_path):
    features = np.random.default_rng(0).normal(size=(50, 2048)) * np.geomspace(1e-3, 10, 2048)
    sigma = np.cov(features, rowvar=False).astype(np.float32)
    np.savez(tmp_path / "x.npz", mu=features.mean(0), sigma=sigma, num_samples=50, size=(8, 8))
    assert measure_set(str(tmp_path / "x.npz"), pytest.fail).size == (8, 8)


# The fuzz: anything gives a result or a LEDiTError.

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
