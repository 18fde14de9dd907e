"""Data sets prepared by TensorFlow Datasets in its array_record format, read without TensorFlow."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ledit_jax.data.source import UnreadableRecord
from ledit_jax.data.transforms import to_array, to_image
from ledit_jax.errors import ConfigError, DataError


class TFDS:
    """The images of `tfds.data_source(name, split=split, data_dir=data_dir)`; nothing is downloaded.

    The data set needs uint8 features "image" (one or three channels, converted to `channels`) and "label" (a class).
    Raises ConfigError when TFDS is not installed, and DataError when it cannot open the set or the features are others.
    """

    def __init__(self, name: str, split: str, data_dir: str = "", channels: int = 3):
        try:
            import tensorflow_datasets as tfds  # here, because it is slow to import and only this source needs it
        except ImportError as error:
            raise ConfigError("data.source=tfds needs TFDS: pip install tensorflow-datasets array_record") from error
        try:
            self._records = tfds.data_source(name, split=split, data_dir=data_dir or None, download=False)
            _check_files(self._records.dataset_info.splits[split].file_instructions)
        except Exception as error:  # TFDS raises a dozen kinds, AssertionError among them
            reason = str(error).strip().partition("\n")[0]
            raise DataError(
                f"data.name={name!r}, data.split={split!r} cannot be read from data.path={data_dir!r} ({reason}): "
                f"prepare it with `tfds build {name} --file_format=array_record --data_dir=...`"
            ) from error
        features = self._records.dataset_info.features
        if not {"image", "label"} <= set(features) or not getattr(features["label"], "num_classes", None):
            raise DataError(
                f"data.name={name!r} has the features {', '.join(features)}, and an image and a class label are needed"
            )
        self.num_classes: int = features["label"].num_classes
        self._name, self._channels = f"{name} {split}", channels

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict:
        try:
            record = self._records[index]
        except (OSError, SyntaxError, ValueError) as error:  # what the decoder says of a damaged image
            raise UnreadableRecord(f"{self._name} record {index}: {error}") from error
        if record["label"] < 0:  # how TFDS marks that a test set keeps its labels to itself
            raise UnreadableRecord(f"{self._name} record {index}: it has no label, take another split")
        image = to_array(to_image(np.asarray(record["image"])), self._channels)
        return {"image": image, "label": int(record["label"])}


def _check_files(instructions: Iterable[Any]) -> None:
    """Raises OSError for a file that is not there or empty: TFDS opens each when its first record is asked for."""
    from etils import epath  # comes with TFDS, and reads cloud storage as TFDS does

    for instruction in instructions:
        if not epath.Path(instruction.filename).stat().length:
            raise OSError(f"{instruction.filename} is empty")
