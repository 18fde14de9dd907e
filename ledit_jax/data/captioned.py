"""Images with captions: COCO's folder with its annotations, and a folder of images each with a text beside it."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ledit_jax.data.image_folder import files_fingerprint, find_images, read_image
from ledit_jax.errors import DataError
from ledit_jax.files.readers import check_json, read_json

_LOG = logging.getLogger(__name__)

Captions = Mapping[str, Sequence[str]]
"""Path of an image within its folder -> its captions, none of them empty; in the order of the records."""


class CaptionedImages:
    """Images and their captions: records {"image": uint8 [h, w, C], "label": 0, "captions": [str, ...]}.

    root: the folder of the images. captions: one or more of each image. channels and size: as for `ImageFolder`, which
    reads images in the same way. A record that cannot be read is an UnreadableRecord.
    """

    num_classes = 1
    has_captions = True

    def __init__(self, root: str, captions: Captions, channels: int = 3, size: tuple[int, int] | None = None):
        self._root, self._channels, self._size = root, channels, size
        self._files, self._captions = list(captions), list(captions.values())

    @property
    def fingerprint(self) -> str:
        """What tells these records from others: every name and caption, and the sizes of files spread over all."""
        return files_fingerprint(self._root, self._files, self._captions)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = read_image(os.path.join(self._root, self._files[index]), self._channels, self._size)
        return {"image": image, "label": 0, "captions": list(self._captions[index])}


def open_coco(path: str, annotations: str, channels: int = 3, size: tuple[int, int] | None = None) -> CaptionedImages:
    """COCO's images in `path`, such as train2014, with the captions of its JSON, such as captions_train2014.json.

    Records are in the order of the file's "images". Raises DataError where the file has another form, or names images
    that are not in the folder.
    """
    root = _folder(path)
    captions = read_coco(annotations)
    there = set(os.listdir(root))
    missing = [file for file in captions if file not in there and not os.path.exists(os.path.join(root, file))]
    if missing:
        raise DataError(
            f"data.annotations={annotations!r} names {len(captions):,} captioned images, and {len(missing):,} of them "
            f"are not in data.path={path!r}, {missing[0]} first: give the folder that they belong to, or complete it"
        )
    return CaptionedImages(path, captions, channels, size)


def read_coco(annotations: str | Path, name: str = "data.annotations") -> dict[str, list[str]]:
    """The captions of each image of COCO's JSON ({"images": [{"id", "file_name"}], "annotations": [{"image_id",
    "caption"}]}), by file name.

    Images without a caption are left out, which the log says. name: of the setting, for messages. Raises DataError for
    a file of another form.
    """
    file = Path(annotations)
    if not file.is_file():
        raise DataError(f"{name}={str(annotations)!r} is not a file: give COCO's JSON of captions")
    values = read_json(file, fields={"images": list, "annotations": list})
    names: dict[int, str] = {}
    for image in values["images"]:
        _entry(image, file, "images", {"id": int, "file_name": str})
        names[image["id"]] = image["file_name"]
    found: dict[int, list[str]] = {number: [] for number in names}
    for annotation in values["annotations"]:
        _entry(annotation, file, "annotations", {"image_id": int, "caption": str})
        if annotation["image_id"] not in found:
            raise DataError(f"{file}: image_id={annotation['image_id']} is none of its images: download it anew")
        if caption := " ".join(annotation["caption"].split()):
            found[annotation["image_id"]].append(caption)
    return _captioned({names[number]: captions for number, captions in found.items()}, str(file))


def _entry(value: Any, file: Path, part: str, fields: Mapping[str, Any]) -> None:
    """Raises DataError for an entry of COCO's JSON that lacks something."""
    name = f"{file}, an entry of {part}"  # of 400,000; only of a bad one more is said
    check_json(value, name, fields=fields)


def open_captioned_folder(path: str, channels: int = 3, size: tuple[int, int] | None = None) -> CaptionedImages:
    """The images anywhere in a folder, each with its captions in a text beside it: a.jpg and a.txt, a caption a line.

    Texts are UTF-8; empty lines are passed over. Images without a caption are left out, which the log says. Raises
    DataError for a text in another encoding.
    """
    root = _folder(path)
    files = sorted(os.path.relpath(image, root) for image in find_images(root))
    return CaptionedImages(path, _captioned({file: _read_text(root / file) for file in files}, path), channels, size)


def _read_text(image: Path) -> list[str]:
    text = image.with_suffix(".txt")
    try:
        lines = text.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{text} cannot be read ({error.strerror or error}): check the place") from error
    except ValueError as error:
        raise DataError(f"{text} is no text in UTF-8 ({error}): save it in that encoding") from error
    return [caption for line in lines if (caption := " ".join(line.split()))]


def _folder(path: str) -> Path:
    if not path or not Path(path).is_dir():
        raise DataError(f"data.path={path!r} is not a folder: give the folder that holds the images")
    return Path(path)


def _captioned(captions: dict[str, list[str]], place: str) -> dict[str, list[str]]:
    """Those of the images that have a caption; what is left out is said."""
    without = [file for file, texts in captions.items() if not texts]
    if len(without) == len(captions):
        raise DataError(f"{place} has no image with a caption, of {len(captions)} images: check the place")
    if without:
        _LOG.warning(
            "left out of %s: %d of %d images, which have no caption, %s first",
            *(place, len(without), len(captions), without[0]),
        )
    return {file: texts for file, texts in captions.items() if texts}
