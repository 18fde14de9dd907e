"""Files of others: JSON of the wrong shape, and archives that lie."""

import io
import zipfile

import numpy as np
import pytest

from ledit_jax.errors import DataError
from ledit_jax.evaluation.images import open_images
from ledit_jax.evaluation.statistics import measure_set
from ledit_jax.files.readers import read_json, read_npy, read_npz

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
