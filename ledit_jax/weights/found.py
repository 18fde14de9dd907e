"""Which folder of a run, or of converted weights, is a checkpoint that can be read: the newest that is whole."""

import contextlib
import json
import logging
import os

from ledit_jax.errors import CheckpointError
from ledit_jax.files import Place, as_place, is_bucket
from ledit_jax.files.bucket import MARK, reaching
from ledit_jax.files.refusals import unmounted

logger = logging.getLogger(__name__)

_KINDS = {"vae": "a VAE", "vision": "CLIP", "text": "a text encoder", "ema": "a model"}
"""By the item that tells one from the others: the first that is there."""


def find_checkpoint(path: str | Place) -> Place:
    """The folder of one step, given that folder, a folder of steps (the newest complete one is taken) or a
    workdir.

    Raises CheckpointError if there is none or it is not complete.
    """
    if not isinstance(path, (str, os.PathLike)) or not str(path).strip() or "\0" in str(path):
        raise CheckpointError(f"checkpoint={str(path)!r} is no name: give a workdir of train.py or a checkpoint folder")
    path = as_place(path)
    if not str(path).startswith("gs://"):  # the one kind of bucket that arrays are read from
        if fault := unmounted(path):
            raise CheckpointError(f"checkpoint {fault}")
        path = path.absolute()
    with reaching(path, CheckpointError):
        return _find(path)


def _find(path: Place) -> Place:
    # Path's own raises for a name that is too long.
    if not (path.is_dir() if is_bucket(path) else os.path.isdir(path)):
        raise CheckpointError(
            f"checkpoint {path!s:.200} does not exist: give a workdir of train.py or a checkpoint folder"
        )
    if (path / "checkpoints").is_dir():
        path = path / "checkpoints"
    if any((path / item).is_dir() for item in ("config", *_KINDS)):
        return _check_complete(path)
    steps = sorted((int(p.name), p) for p in path.iterdir() if p.is_dir() and p.name.isdecimal())
    if steps:
        complete = [step for _, step in steps if _lacks(step) is None]
        if complete and complete[-1] != steps[-1][1]:
            logger.warning(f"checkpoint {steps[-1][1]} is half-written (it has no {_lacks(steps[-1][1])}): passed over")
        return complete[-1] if complete else _check_complete(steps[-1][1])
    if any(".orbax-checkpoint-tmp" in p.name for p in path.iterdir()):
        raise CheckpointError(f"checkpoint {path} is half-written and was never finished: use another one")
    raise CheckpointError(f"checkpoint {path} holds no steps: give a workdir of train.py or a checkpoint folder")


def is_whole(folder: Place) -> bool:
    """Whether a step's folder has Orbax's mark; in a bucket, where that is written first, with the time of its end.

    (There `commit_success.txt` follows it at once. Copies of what older versions of Orbax wrote have none.)
    """
    mark = folder / MARK
    if not mark.is_file():
        return False
    try:
        return not is_bucket(folder) or bool(json.loads(mark.read_text())["commit_timestamp_nsecs"])
    except (ValueError, LookupError, TypeError):
        return False


def kind_of(folder: Place) -> str:
    """Whose weights a step's folder holds, as messages say it: "a model", "a VAE", "a text encoder" or "CLIP"."""
    return next((kind for item, kind in _KINDS.items() if (folder / item).is_dir()), "a model")


def _check_complete(folder: Place) -> Place:
    if lacks := _lacks(folder):
        raise CheckpointError(f"checkpoint {folder} is half-written (it has no {lacks}): use another one")
    return folder


def _lacks(folder: Place) -> str | None:
    """What a step's folder lacks to be complete, for training and sampling alike."""
    if not (folder / "vae").is_dir():
        needed = ("config", "text", "tokenizer") if (folder / "text").is_dir() else ("config", "ema")
        missing = [name for name in needed if not (folder / name).is_dir()]
        if missing:
            return missing[0]
    if not is_bucket(folder):
        for file in ("config/metadata", "data/metadata", *(f"{kind}/_METADATA" for kind in _KINDS)):
            with contextlib.suppress(OSError):
                if not (folder / file).stat().st_size:  # as a power cut leaves it
                    return file
    return None if is_whole(folder) else "commit mark"
