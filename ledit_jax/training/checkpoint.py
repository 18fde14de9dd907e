"""A run's checkpoints on Orbax: the whole state, saved asynchronously, restored bit for bit onto any mesh."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from ledit_jax.config import Config
from ledit_jax.errors import CheckpointError
from ledit_jax.parallel.processes import gather_json
from ledit_jax.training.state import TrainState
from ledit_jax.weights import describe, load_description, read_arrays, read_json


class TrainCheckpointer:
    """Saves and restores a run's whole state under `workdir/checkpoints`, asynchronously."""

    def __init__(self, workdir: Path, config: Config):
        self.directory, self.config = Path(workdir).absolute() / "checkpoints", config
        options = ocp.CheckpointManagerOptions(
            max_to_keep=config.train.keep_last, keep_period=config.train.keep_every or None, create=True
        )
        self.manager = ocp.CheckpointManager(self.directory, options=options)

    def save(self, state: TrainState, data_state: dict[str, Any]) -> None:
        """Starts writing the state; returns once its values are safe from the next step's donation."""
        step = int(state.step)
        if step in self.manager.all_steps():
            return
        optimizer = _optimizer_item(state)
        arrays = {"params": state.params, "ema": state.ema, "optimizer": optimizer}
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(state.params),
            ema=ocp.args.StandardSave(state.ema),
            optimizer=ocp.args.StandardSave(optimizer),
            data=ocp.args.JsonSave({"per_process": gather_json(data_state)}),
            config=ocp.args.JsonSave(describe(self.config, step, arrays)),
        )
        self.manager.save(step, args=items, force=True)

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self.manager.latest_step()

    def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest checkpoint as (state, this process's data state).

        `abstract` gives shapes, dtypes and shardings, which need not be those it was written with. Raises
        CheckpointError if the architecture changed or a file is damaged.
        """
        step = self.latest_step()
        folder = self.directory / str(step)
        _check_same_architecture(Config.from_dict(load_description(folder)["config"]), self.config, folder)
        state = TrainState(
            params=read_arrays(folder / "params", abstract.params),
            ema=read_arrays(folder / "ema", abstract.ema),
            **read_arrays(folder / "optimizer", _optimizer_item(abstract)),
        )
        data_states = read_json(folder, "data", {"per_process": list})["per_process"]
        if len(data_states) != jax.process_count():
            raise CheckpointError(
                f"{folder} was written by {len(data_states)} processes and there are {jax.process_count()}: "
                "resume with as many, or start anew from its weights, by init_from"
            )
        return state, data_states[jax.process_index()]

    def wait(self) -> None:
        """Blocks until every save has been committed."""
        self.manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then releases threads."""
        self.manager.close()


def _optimizer_item(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "nonfinite_steps": state.nonfinite_steps, "opt_state": state.opt_state}


def _check_same_architecture(saved: Config, current: Config, folder: Path) -> None:
    """What changes the meaning of the weights must be as it was; the schedule, the batch and the mesh may change."""
    free = {"dtype", "remat", "attention", "conv_init"}
    for field in dataclasses.fields(saved.model):
        old, new = getattr(saved.model, field.name), getattr(current.model, field.name)
        if field.name not in free and old != new:
            raise CheckpointError(
                f"model.{field.name}={new!r}, but {folder} was trained with {old!r}: set it back to resume, or train "
                "in another workdir (init_from starts it from these weights)"
            )
    for name in ("diffusion", "autoencoder"):
        if getattr(saved, name) != getattr(current, name):
            raise CheckpointError(f"config section {name} differs from that of {folder}: set it back to resume")
    if saved.in_channels != current.in_channels:
        raise CheckpointError(
            f"data.image_channels={current.in_channels}, but {folder} was trained with {saved.in_channels}"
        )
