"""Starting a run from the weights of another checkpoint (fine-tuning): what fits is loaded, and all is reported."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp

from ledit_jax.config import Config
from ledit_jax.diffusion import make_process
from ledit_jax.errors import CheckpointError
from ledit_jax.models import Network, Params, init_params, make_network
from ledit_jax.models.positions import TABLE
from ledit_jax.models.tables import resize_table
from ledit_jax.weights import load_weights

_LABELS = "label_embed/embedding"
# Settings that give the weights their meaning and that no shape tells.
_MEANING = ("num_heads", "timestep_max_period", "timestep_frequency_shift")


@dataclasses.dataclass(frozen=True)
class InitReport:
    """Parameter names by what became of them; `notes` are about what is no parameter."""

    loaded: tuple[str, ...]
    dropped: tuple[str, ...]
    initialised: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        rows = [f"loaded {len(self.loaded)} parameter arrays"]
        rows += [f"dropped: {name}" for name in self.dropped]
        rows += [f"newly initialised: {name}" for name in self.initialised]
        return "\n".join([*rows, *self.notes])


def init_from_checkpoint(
    path: str | Path, config: Config, network: Network, key: jax.Array
) -> tuple[Params, InitReport]:
    """Parameters for `config`, taken from the checkpoint (its EMA) wherever a name exists in both.

    Whatever only this config has, such as LEDiT's convolution over a DiT, is initialised as the config says: the
    identity by default, so that step 0 computes what the checkpoint does without its positions. A learned positional
    table is resized to this config's grid. Raises CheckpointError naming every array whose shape differs, and for a
    number of heads or timestep frequencies that are not the checkpoint's.
    """
    source, source_config, step = load_weights(path)
    _check_meaning(path, source_config, config)
    old, new = _flatten(source), _flatten(init_params(network, key))
    notes = [f"from {path}, step {step}"]
    if source_config.model.num_classes != config.model.num_classes:
        # Other classes: their rows mean nothing here.
        notes.append(f"dropped: {_LABELS} {old.pop(_LABELS).shape} (num_classes differs)")
    if TABLE in old and TABLE in new and old[TABLE].shape[:2] != new[TABLE].shape[:2]:
        notes.append(f"resized: {TABLE} {old[TABLE].shape} -> {new[TABLE].shape}")
        old[TABLE] = resize_table(old[TABLE], new[TABLE].shape[:2])
    wrong = [f"{name} {old[name].shape} -> {new[name].shape}" for name in old if _differ(old, new, name)]
    if wrong:
        raise CheckpointError(f"--init_from={path} does not fit this model: {'; '.join(wrong)}")
    lost = make_network(source_config, make_process(source_config)).position.lost_when_dropped
    if lost and source_config.model.position != config.model.position:
        notes.append(f"dropped: {lost} (not a parameter)")
    merged = {name: jnp.asarray(old.get(name, value)) for name, value in new.items()}
    report = InitReport(
        loaded=tuple(sorted(old.keys() & new.keys())),
        dropped=tuple(sorted(old.keys() - new.keys())),
        initialised=tuple(f"{name} {new[name].shape}" for name in sorted(new.keys() - old.keys())),
        notes=tuple(notes),
    )
    return _unflatten(merged), report


def _check_meaning(path: str | Path, saved: Config, config: Config) -> None:
    for name in _MEANING:
        old, new = getattr(saved.model, name), getattr(config.model, name)
        if old != new:
            raise CheckpointError(
                f"--init_from={path} was trained with model.{name}={old}, and this config has {new}: add "
                f"--config.model.{name}={old}"
            )


def _differ(old: Params, new: Params, name: str) -> bool:
    return name in new and old[name].shape != new[name].shape


def _flatten(params: Params) -> dict[str, jax.Array]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


def _unflatten(flat: dict[str, jax.Array]) -> Params:
    params: Params = {}
    for name, value in flat.items():
        *folders, leaf = name.split("/")
        node = params
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = value
    return params
