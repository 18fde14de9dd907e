"""Small images with captions, as COCO and as folders lay them out."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from ledit_jax.config import DataConfig

CAPTIONS = {
    "COCO_train2014_000000000009.jpg": ["A red disc.", "A disc  on\na table."],
    "COCO_train2014_000000000025.jpg": ["Two giraffes by a tree."],
    "COCO_train2014_000000000030.jpg": ["Flowers in a vase.", "A white vase.", "Ein Straußenei – Blumen daneben."],
}


def save_jpeg(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = 20 + seed, 18 + 2 * seed, 3
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(path)


def write_coco(root: Path, captions: dict[str, list[str]] = CAPTIONS) -> DataConfig:
    """root/train2014 and root/captions_train2014.json."""
    images = [{"id": int(name[-16:-4]), "file_name": name, "height": 20} for name in captions]
    texts = [(image["id"], text) for image in images for text in captions[image["file_name"]]]
    annotations = [{"id": i, "image_id": image, "caption": text} for i, (image, text) in enumerate(reversed(texts))]
    file = root / "captions_train2014.json"
    file.write_text(json.dumps({"info": {}, "images": images, "annotations": annotations}))
    for seed, name in enumerate(captions):
        save_jpeg(root / "train2014" / name, seed)
    return DataConfig(
        source="coco", path=str(root / "train2014"), annotations=str(file), image_height=16, image_width=12
    )
