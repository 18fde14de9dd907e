"""Whole files, folders of pieces, and places in buckets: what a kill or a power cut leaves is whole, or not there."""

from ledit_jax.files.bucket import Place, as_place, is_bucket
from ledit_jax.files.local_copy import local_copy
from ledit_jax.files.pieces import PieceFolder, differences
from ledit_jax.files.readers import read_json
from ledit_jax.files.refusals import check_place
from ledit_jax.files.whole import (
    check_writable,
    flush_tree,
    move_folder,
    recipe_path,
    settle,
    whole_file,
    write_json,
    write_whole,
    written_aside,
)

__all__ = [
    "PieceFolder",
    "Place",
    "as_place",
    "check_place",
    "check_writable",
    "differences",
    "flush_tree",
    "is_bucket",
    "local_copy",
    "move_folder",
    "read_json",
    "recipe_path",
    "settle",
    "whole_file",
    "write_json",
    "write_whole",
    "written_aside",
]
