"""Data sets prepared by TensorFlow Datasets in its array_record format, read without TensorFlow."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ledit_jax.data.source import UnreadableRecord
from ledit_jax.data.transforms import to_array, to_image
from ledit_jax.errors import ConfigError, DataError


class TFDS:
    """The images of `tfds.data_source(name, split=split, data_dir=data_dir)`; nothing is downloaded.

    The data set needs uint8 features "image" (one or three channels, converted to `channels`), and a "label" (a class)
    or "captions", a sequence of texts, or with a "text" each as coco_captions has them; then records are as those of
    `ledit_jax.data.captioned.CaptionedImages`. Raises ConfigError when TFDS is not installed, and DataError when it
    cannot open the set or the features are others.
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
        self.has_captions = "captions" in features
        classes = 1 if self.has_captions else getattr(dict(features).get("label"), "num_classes", None)
        if "image" not in features or not classes:
            raise DataError(
                f"data.name={name!r} has the features {', '.join(features)}, and an image and a class label, or "
                "captions, are needed"
            )
        self.num_classes: int = classes
        self._name, self._channels = f"{name} {split}", channels

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict:
        try:
            record = self._records[index]
        except (OSError, SyntaxError, ValueError) as error:  # what the decoder says of a damaged image
            raise UnreadableRecord(f"{self._name} record {index}: {error}") from error
        image = to_array(to_image(np.asarray(record["image"])), self._channels)
        if self.has_captions:
            captions = _captions(record["captions"])
            if not captions:
                raise UnreadableRecord(f"{self._name} record {index}: it has no caption")
            return {"image": image, "label": 0, "captions": captions}
        if record["label"] < 0:  # how TFDS marks that a test set keeps its labels to itself
            raise UnreadableRecord(f"{self._name} record {index}: it has no label, take another split")
        return {"image": image, "label": int(record["label"])}


def _captions(feature: Any) -> list[str]:
    """The texts of a feature; TFDS gives those of a sequence of dicts as a dict of sequences."""
    texts = feature["text"] if isinstance(feature, dict) else feature
    decoded = [text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in texts]
    return [caption for text in decoded if (caption := " ".join(text.split()))]


def _check_files(instructions: Iterable[Any]) -> None:
    """Raises OSError for a file that is not there or empty: TFDS opens each when its first record is asked for."""
    from etils import epath  # comes with TFDS, and reads cloud storage as TFDS does

    for instruction in instructions:
        if not epath.Path(instruction.filename).stat().length:
            raise OSError(f"{instruction.filename} is empty")
