"""Where conversion may write: a new place, or over what it wrote itself."""

from pathlib import Path

from ledit_jax.errors import OutputError
from ledit_jax.files import as_place, is_bucket
from ledit_jax.files.bucket import MARK, MARKS, reaching

_CONVERTED = ({"ema"}, {"vae"}, {"text", "tokenizer"}, {"text", "vision", "tokenizer"})
"""The items beside `config` of what conversion writes."""


def check_output(output: Path, overwrite: bool, source: str | Path, makes_file: bool) -> None:
    """Raises OutputError for an `output` that is no name, is the source, or exists.

    With `overwrite` it may exist, as a file where one is to be written, or else as a converted checkpoint.
    """
    if not output.name.strip():
        raise OutputError(f"output={str(output)!r} is no name: give that of a folder or a file to make")
    if is_bucket(output):
        with reaching(output, OutputError):
            if as_place(output).exists():
                raise OutputError(f"output={as_place(output)} exists already: choose another place, or remove it")
        return
    if output.exists() and Path(source).exists() and output.samefile(source):
        raise OutputError(f"output={output} is the input: choose another place")
    if output.exists() and not overwrite:
        raise OutputError(f"output={output} exists already: choose another place, or give overwrite")
    if output.is_file() and not makes_file:
        raise OutputError(f"output={output} is a file, and a folder is to be written: choose another place")
    if output.is_dir() and not _is_converted(output):
        raise OutputError(f"output={output} is a folder with other things in it: choose another place")


def _is_converted(folder: Path) -> bool:
    """Whether it is one step with weights and config alone; a run's own checkpoints hold its optimizer as well."""
    steps = list(folder.iterdir())
    if len(steps) != 1 or not steps[0].name.isdecimal() or not (steps[0] / "config").is_dir():
        return False
    held = {path.name for path in steps[0].iterdir()}
    return MARK in held and held - {*MARKS, "config"} in _CONVERTED
