"""Slices by name: what is known, and one line for what is not."""

import importlib.util

import pytest

from ledit_jax.compile_only.topology import describe_devices, parse_topology
from ledit_jax.errors import ConfigError


def test_a_slice_has_a_chip_for_each_place():
    assert [parse_topology(name).chips for name in ("v5e:4x4", "v5p:4x4x16")] == [16, 256]


@pytest.mark.parametrize(
    "name, message",
    [
        ("v5e", "compile_only=v5e is no topology: use GENERATION:SIDES, as in v5e:4x4"),
        ("v5e:4*4", "is no topology"),
        ("v5x:4x4", "TPU generation v5x is unknown: did you mean v5p"),
        ("h100:8x1", "TPU generation h100 is unknown: known are tpu7x, v4, v5e, v5p, v6e"),
        ("v5e:4x4x4", "a slice of v5e has 2 sides, as in v5e:4x4"),
        ("v5p:4x4", "a slice of v5p has 3 sides, as in v5p:4x4x4"),
        ("v5e:3x4", "the first two sides are even"),
        ("v5e:32x32", "a pod of v5e is v5e:16x16 at most"),
        ("v5e:0x4", "a slice of v5e has 2 sides"),
    ],
)
def test_other_names_are_one_line(name, message):
    with pytest.raises(ConfigError, match=message.replace("*", r"\*")):
        parse_topology(name)


def test_without_libtpu_the_mend_names_the_version(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    with pytest.raises(ConfigError, match=r"needs the TPU compiler: pip install 'libtpu==.*'"):
        describe_devices(parse_topology("v5e:4x4"))
