"""Starting a run from the weights of another checkpoint (fine-tuning): what fits is loaded, and all is reported."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.extend.core import jaxpr_as_fun
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ledit_jax.config import Config
from ledit_jax.diffusion import make_process
from ledit_jax.errors import CheckpointError
from ledit_jax.files import Place
from ledit_jax.hub import resolve
from ledit_jax.models import Network, Params, abstract_params, init_params, make_network
from ledit_jax.models.positions import TABLE
from ledit_jax.models.tables import resize_table
from ledit_jax.parallel.processes import shard_arrays
from ledit_jax.weights import (
    check_finite,
    find_checkpoint,
    find_lineage,
    find_places,
    load_description,
    open_weights,
    read_arrays,
    stored_shapes,
)
from ledit_jax.weights.about import load_about, write_about

Arrays = dict[str, Any]
"""Arrays, their shapes or their shardings by name: "blocks/attn/qkv/kernel"."""

_LABELS = "label_embed/embedding"
_OUTPUT = "final_layer/linear/"
# Settings that give the weights their meaning and that no shape tells; the second of them if both learn a flow.
_MEANING = ("network", "num_heads", "timestep_max_period", "timestep_frequency_shift")
_TEXT_MEANING = ("encoder", "length", "width")
_FLOW_MEANING = ("path", "convention", "time_scale")


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
    path: str | Path, config: Config, key: jax.Array, mesh: Mesh | None = None, *, network: Network | None = None
) -> tuple[Params, InitReport]:
    """Parameters for `config`, taken from the checkpoint (its EMA) wherever a name exists in both.

    Whatever only this config has, such as LEDiT's convolution over a DiT, is initialised as the config says: the
    identity by default, so that step 0 computes what the checkpoint does without its positions. A learned positional
    table is resized to this config's grid; over a checkpoint with a fixed one, it starts as that. mesh and network as
    for `load_weights`: each device reads its own part, and what is dropped is not read. Raises CheckpointError naming
    every array whose shape differs, and for a number of heads or timestep frequencies that are not the checkpoint's.
    From a diffusion to a flow, or back, the last layer starts anew: it predicted something else.
    """
    folder, source, step = open_weights(resolve(path))
    _check_meaning(path, source, config)
    network = network or make_network(config, make_process(config))
    abstract = abstract_params(network)
    stored, new, where = _flatten(stored_shapes(folder)), _flatten(abstract), _flatten(find_places(abstract, mesh))
    fixed = _fixed_table(source) if TABLE in new and TABLE not in stored else None
    report = _compare(path, step, source, config, dict(stored), new, starts_fixed=fixed is not None)
    params = _read(folder, stored, {name: new[name] for name in report.loaded}, where)
    if fixed is not None:
        params[TABLE] = shard_arrays(_resized(fixed, new[TABLE]), where[TABLE])
    for name in sorted(new.keys() - params.keys()):
        params[name] = shard_arrays(_initial_value(network, key, name), where[name])
    return unflatten_dict(params, sep="/"), report


def run_lineage(workdir: Place, init_from: str | Path | None, resume_from: int | None = None) -> tuple[int, ...]:
    """What a run's checkpoints say if it has any, else what starting from `init_from` makes of it, empty for neither.

    It enters a run's draws: with the seed of the run before, its order of data, times and noise would come once more.
    """
    steps = ocp.utils.checkpoint_steps(workdir / "checkpoints") if (workdir / "checkpoints").is_dir() else []
    if steps:
        return find_lineage(workdir / "checkpoints" / str(resume_from if resume_from in steps else max(steps)))
    if not init_from:
        return ()
    folder = find_checkpoint(resolve(init_from))
    return (*find_lineage(folder), load_description(folder)["step"])


def inherit_about(init_from: str | Path, folder: Place, config: Config) -> None:
    """Says in a run's folder of checkpoints whose weights it began with, and so what licence they have."""
    if jax.process_index():
        return
    about = load_about(resolve(init_from))
    if about.origin.startswith("hf://") and about.autoencoder and not about.autoencoder.startswith("hf://"):
        about = dataclasses.replace(about, autoencoder=f"{about.origin}/vae")
    same_classes = len(about.class_names) == config.model.num_classes
    write_about(folder, dataclasses.replace(about, class_names=about.class_names if same_classes else ()))


def run_seed(seed: int, lineage: tuple[int, ...]) -> int:
    """The seed of a run's key and of its dilations: `seed` itself from scratch."""
    return int(np.random.SeedSequence((seed, *lineage)).generate_state(1)[0]) >> 1 if lineage else seed


def _compare(
    path: str | Path, step: int, source: Config, config: Config, old: Arrays, new: Arrays, *, starts_fixed: bool
) -> InitReport:
    """What will become of the arrays `old` of the checkpoint and of those that are needed; both are shapes.

    starts_fixed: whether the learned table starts as the checkpoint's fixed one.
    """
    notes = [f"from {path}, step {step}"]
    if source.model.num_classes != config.model.num_classes and _LABELS in old:
        # Other classes: their rows mean nothing here.
        notes.append(f"dropped: {_LABELS} {old.pop(_LABELS).shape} (num_classes differs)")
    if source.diffusion.objective != config.diffusion.objective:
        for name in [name for name in old if name.startswith(_OUTPUT)]:
            notes.append(f"dropped: {name} {old.pop(name).shape} (it predicted for {source.diffusion.objective})")
    shapes = {name: old[name].shape for name in sorted(old.keys() & new.keys())}
    if TABLE in shapes and shapes[TABLE][:2] != new[TABLE].shape[:2]:
        notes.append(f"resized: {TABLE} {shapes[TABLE]} -> {new[TABLE].shape}")
        shapes[TABLE] = new[TABLE].shape[:2] + shapes[TABLE][2:]
    wrong = [f"{name} {shape} -> {new[name].shape}" for name, shape in shapes.items() if shape != new[name].shape]
    if wrong:
        raise CheckpointError(f"init_from={path} does not fit this model: {'; '.join(wrong)}")
    lost = make_network(source, make_process(source)).position.lost_when_dropped
    if starts_fixed:
        notes.append(f"initialised: {TABLE} {new[TABLE].shape} from {lost}")
    elif lost and source.model.position != config.model.position:
        notes.append(f"dropped: {lost} (not a parameter)")
    fresh = sorted(new.keys() - old.keys() - ({TABLE} if starts_fixed else set()))
    return InitReport(
        loaded=tuple(shapes),
        dropped=tuple(sorted(old.keys() - new.keys())),
        initialised=tuple(f"{name} {new[name].shape}" for name in fresh),
        notes=tuple(notes),
    )


def _fixed_table(source: Config) -> np.ndarray | None:
    """The table [h, w, D] that a checkpoint's tokens were trained with, if it is no parameter."""
    return make_network(source, make_process(source)).position.fixed_table(source.token_grid(), source.model.width)


def _resized(table: Any, wanted: jax.ShapeDtypeStruct) -> Any:
    """A positional table at the grid that is wanted."""
    return table if table.shape == wanted.shape else resize_table(jnp.asarray(table), wanted.shape[:2])


def _check_meaning(path: str | Path, saved: Config, config: Config) -> None:
    both_flow = saved.diffusion.objective == config.diffusion.objective == "flow"
    meanings = {"model": _MEANING, "text": _TEXT_MEANING, "flow": _FLOW_MEANING if both_flow else ()}
    for section, names in meanings.items():
        for name in names:
            old, new = (getattr(getattr(one, section), name) for one in (saved, config))
            if old != new:
                raise CheckpointError(
                    f"init_from={path} was trained with {section}.{name}={old}, and this config has {new}: "
                    f"set it to {old}"
                )


def _read(folder: Path, stored: Arrays, wanted: Arrays, where: Arrays) -> Arrays:
    """The arrays `wanted`, read to where they belong; a table of another size is read whole and resized."""

    def target(name: str) -> Any:
        if name not in wanted:
            return ocp.PLACEHOLDER
        place = where[name]
        if stored[name].shape != wanted[name].shape and isinstance(place, NamedSharding):
            place = NamedSharding(place.mesh, P())
        return jax.ShapeDtypeStruct(stored[name].shape, stored[name].dtype, sharding=place)

    arrays = _flatten(read_arrays(folder, unflatten_dict({name: target(name) for name in stored}, sep="/")))
    for name, array in arrays.items():
        if name in wanted and array.shape != wanted[name].shape:
            arrays[name] = shard_arrays(_resized(array, wanted[name]), where[name])
    arrays = {name: arrays[name] for name in wanted}
    check_finite(folder.parent, arrays)
    return arrays


def _initial_value(network: Network, key: jax.Array, name: str) -> jax.Array:
    """One parameter as `init_params` makes it, and no other with it.

    Its operations run one by one: compiled together they would be rounded otherwise.
    """
    return jaxpr_as_fun(jax.make_jaxpr(lambda key: _flatten(init_params(network, key))[name])(key))(key)[0]


def _flatten(params: Params) -> Arrays:
    return flatten_dict(params, sep="/")
