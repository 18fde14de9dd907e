"""The prompts that samples were drawn from: beside them, or in a file of their own."""

from pathlib import Path

from ledit_jax.errors import ConfigError, DataError
from ledit_jax.files import local_copy
from ledit_jax.files.readers import Header, check_array, read_npz

IN_FOLDER, IN_NPZ = "prompts.txt", "prompts"
"""What sample.py calls them: a file in a folder of images, one a line, and an array in an npz."""


def read_prompts(samples: str | Path, file: str | Path | None = None) -> list[str]:
    """One prompt for each image, in the order of the images.

    file: a text, one prompt a line; by default the prompts that lie with the samples. Raises ConfigError where there
    are none, and DataError for a file that cannot be read.
    """
    path = Path(local_copy(str(samples)))
    if file is None and path.is_dir():
        file = path / IN_FOLDER
    if file is None:
        prompts = _in_npz(path) if path.suffix == ".npz" else None
    else:
        prompts = _in_text(Path(file)) if Path(file := local_copy(str(file))).is_file() else None
    if prompts is None:
        raise ConfigError(
            f"{file or samples} holds no prompts: give a text of one prompt a line, in the order of the images"
        )
    return prompts


def _in_text(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: a prompt may hold other separators
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): give a text in UTF-8, one prompt a line") from error
    return [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def _in_npz(path: Path) -> list[str] | None:
    def wanted(name: str, header: Header) -> bool:
        if name == IN_NPZ:
            check_array(path, name, header, (None,), "U")
        return name == IN_NPZ

    prompts = read_npz(path, wanted).get(IN_NPZ)
    return None if prompts is None else prompts.tolist()
