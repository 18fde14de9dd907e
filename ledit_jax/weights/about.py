"""What a checkpoint is told beside its weights: class names, origin, licence, and the encoders that belong to it.

They lie in `about.json`, beside the folder of the step, and all of them may be missing.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from ledit_jax.files import Place, write_json
from ledit_jax.files.readers import check_json, read_json
from ledit_jax.weights.found import find_checkpoint

_FILE = "about.json"


@dataclass(frozen=True)
class About:
    """Empty where nothing is known."""

    class_names: tuple[str, ...] = ()
    """One for each class; some may be empty."""
    origin: str = ""
    """Where the weights come from, such as hf://org/name@commit."""
    license: str = ""
    """Of the weights, as hubs write it: cc-by-nc-4.0."""
    autoencoder: str = ""
    """Name of the VAE's checkpoint: a model of the hub, or a folder, relative to that of `about.json`."""
    text_encoder: str = ""
    """The same of the text encoder's."""


def read_about(values: dict, name: object) -> About:
    """The fields that JSON has of it; more are passed by. name: of the place, for messages. Raises DataError."""
    found = {field.name: values[field.name] for field in dataclasses.fields(About) if field.name in values}
    check_json(found, name, fields={field: list if field == "class_names" else str for field in found})
    return About(**found | {"class_names": tuple(str(text) for text in found.get("class_names", ()))})


def load_about(checkpoint: str | Path) -> About:
    """What lies beside a checkpoint, with folders as absolute paths. Raises CheckpointError where there is none."""
    folder = find_checkpoint(checkpoint).parent
    if not (folder / _FILE).is_file():
        return About()
    about = read_about(read_json(folder / _FILE), folder / _FILE)
    places = {name: getattr(about, name) for name in ("autoencoder", "text_encoder")}
    beside = {name: str(folder / place) for name, place in places.items() if place and (folder / place).is_dir()}
    return dataclasses.replace(about, **beside)


def write_about(folder: Place, about: About) -> None:
    """Beside the step in `folder`."""
    write_json(folder / _FILE, dataclasses.asdict(about))
