"""A run's checkpoints on Orbax: the whole state, saved asynchronously, restored bit for bit onto any mesh."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from ledit_jax.config import Config
from ledit_jax.errors import CheckpointError, DamagedCheckpoint
from ledit_jax.files import Place, as_place, is_bucket, move_folder
from ledit_jax.files.refusals import free_bytes, full_disk, gone, writing
from ledit_jax.parallel.processes import gather_json, main_process_first
from ledit_jax.training.state import TrainState
from ledit_jax.weights import check_finite, describe, find_checkpoint, load_config, read_arrays, read_json
from ledit_jax.weights.durable import DurableSave

logger = logging.getLogger(__name__)


class TrainCheckpointer:
    """Saves and restores a run's whole state under `workdir/checkpoints`, asynchronously."""

    def __init__(self, workdir: Place, config: Config, lineage: tuple[int, ...] = ()):
        """lineage: of the run, see `ledit_jax.weights.find_lineage`."""
        workdir = as_place(workdir) if is_bucket(workdir) else Path(workdir).absolute()
        self.directory, self.config, self.lineage = workdir / "checkpoints", config, lineage
        options = ocp.CheckpointManagerOptions(
            max_to_keep=max(config.train.keep_last, 2),
            keep_period=config.train.keep_every or None,
            create=True,
            cleanup_tmp_directories=True,  # what a kill or a full disk left: the run has the folder to itself
        )
        with writing(self.directory):
            self.manager = ocp.CheckpointManager(self.directory, options=options)
        # To tell it from another folder of its name, which a bucket does not have.
        self._place = None if is_bucket(workdir) else os.open(self.directory, os.O_RDONLY)

    def save(self, state: TrainState, data_state: dict[str, Any]) -> None:
        """Starts writing the state; returns once its values are safe from the next step's donation.

        Raises OutputError where the disk has no room for it, or had none for the one before.
        """
        step = int(state.step)
        if not all(gather_json(self._is_there())):
            raise gone(self.directory)
        if step in self.manager.all_steps():
            return
        optimizer = _optimizer_item(state)
        arrays = {"params": state.params, "ema": state.ema, "optimizer": optimizer}
        self._check_room(step, arrays)
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(state.params),
            ema=ocp.args.StandardSave(state.ema),
            optimizer=ocp.args.StandardSave(optimizer),
            data=ocp.args.JsonSave({"per_process": gather_json(data_state)}),
            config=DurableSave(describe(self.config, step, arrays) | {"lineage": list(self.lineage)}),
        )
        with self._writing():
            self.manager.save(step, args=items, force=True)

    def check(self) -> None:
        """Raises OutputError for a checkpoint that could not be written while training went on."""
        with self._writing():
            self.manager.check_for_errors()

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, or None. Raises CheckpointError if all are half-written."""
        return int(find_checkpoint(self.directory).name) if self.steps() else None

    def steps(self) -> list[int]:
        """Steps of all checkpoints, oldest first."""
        return sorted(self.manager.all_steps())

    def restore(
        self, abstract: TrainState, step: int, went_back: bool = False
    ) -> tuple[TrainState, list[dict[str, Any]]]:
        """The checkpoint of a step that `choose` chose, as (state, the data states of all processes that wrote it).

        `abstract` gives shapes, dtypes and shardings, which need not be those it was written with. What is newer is
        moved out of the way, to `set_aside` in the workdir; `went_back` says that it was asked for. Raises
        CheckpointError if the network or the process changed or a file is damaged.
        """
        folder = self.directory / str(step)
        try:
            saved = load_config(folder)
            check_same_meaning(saved, self.config, folder)
            for name, (old, new) in differences(saved, self.config).items():
                logger.info(f"goes on with {name}={new!r}, which was {old!r}")
            state, data_states = self._read(folder, abstract)
        except DamagedCheckpoint as error:
            raise CheckpointError(f"{str(error).removesuffix(': use another one')}: {self._way_out(step)}") from error
        main_process_first(lambda: self._set_aside(step, went_back))
        self.manager.reload()
        return state, data_states

    def choose(self, resume_from: int | None) -> int | None:
        """The step to resume at, None for a new run.

        Going back to `resume_from` is done once: the same command again goes on with what has been trained since.
        Raises CheckpointError if it is not there.
        """
        latest = self.latest_step()
        if resume_from is None:
            return latest
        mark = self._mark(resume_from)
        if gather_json(mark.is_dir())[0]:
            logger.info(f"resume_from={resume_from} was done before, going on (to do it again, remove {mark})")
            return latest
        if resume_from not in self.steps():
            there = ", ".join(map(str, self.steps())) or "none"
            raise CheckpointError(f"resume_from={resume_from}: {self.directory} has no such step; there are: {there}")
        return resume_from

    def _read(self, folder: Place, abstract: TrainState) -> tuple[TrainState, list[dict[str, Any]]]:
        state = TrainState(
            params=read_arrays(folder / "params", abstract.params),
            ema=read_arrays(folder / "ema", abstract.ema),
            **read_arrays(folder / "optimizer", _optimizer_item(abstract)),
        )
        check_finite(folder, {"params": state.params, "ema": state.ema})
        return state, read_json(folder, "data", {"per_process": list})["per_process"]

    def _way_out(self, step: int) -> str:
        older = [str(other) for other in self.steps() if other < step]
        remove = f"remove {self.directory / str(step)}"
        return f"{remove}, or go back with resume_from={older[-1]}" if older else f"{remove} to start anew"

    def _mark(self, step: int) -> Place:
        return self.directory.parent / "set_aside" / f"resumed_from_{step}"

    def _set_aside(self, step: int, went_back: bool) -> None:
        folder = self._mark(step) if went_back else self.directory.parent / "set_aside" / "half_written"
        if went_back:  # even with nothing newer: the same command will come again
            folder.mkdir(parents=True, exist_ok=True)
            if is_bucket(folder):  # where no folder is empty
                (folder / "done").touch()
        for newer in (other for other in self.steps() if other > step):
            place = folder / str(newer)
            place.parent.mkdir(parents=True, exist_ok=True)
            while place.exists():
                place = place.with_name(f"{place.name}_")
            move_folder(self.directory / str(newer), place)
            logger.warning(f"checkpoint {newer} is newer than {step}, where this run goes on: moved to {place}")

    def wait(self) -> None:
        """Blocks until every save has been committed."""
        with self._writing():
            self.manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then releases threads."""
        with self._writing():
            self.manager.close()
        if self._place is not None:
            os.close(self._place)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Around what Orbax writes; where the folder goes meanwhile, it and its store say so in many ways."""
        try:
            with writing(self.directory):
                yield
        except Exception as error:
            # While it is being removed, what goes first is missing in a folder that is still there.
            missing = re.search("No such file|does not exist|NOT_FOUND|No ArrayMetadata found", str(error))
            if not self._is_there() or (missing and self._place is not None):
                raise gone(self.directory) from error
            raise

    def _is_there(self) -> bool:
        if self._place is None:
            return True
        try:
            return os.path.samestat(os.stat(self.directory), os.fstat(self._place))
        except OSError:
            return False

    def _check_room(self, step: int, arrays: dict[str, Any]) -> None:
        if is_bucket(self.directory):
            return
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))
        free = min(gather_json(free_bytes(self.directory)))
        if needed > free:
            raise full_disk(
                f"{self.directory} has no room for the checkpoint of step {step} ({needed / 2**20:,.1f} MiB are needed "
                f"and {free / 2**20:,.1f} are free): make room and run it again, it goes on from the one before"
            )


def _optimizer_item(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "nonfinite_steps": state.nonfinite_steps, "opt_state": state.opt_state}


# In these sections all must be as it was, since it gives weights their meaning, but for the fields named: how they are
# computed, and how times are drawn.
_MAY_CHANGE = {
    "model": {"dtype", "matmul_precision", "scan_layers", "remat", "attention", "conv_init"},
    "diffusion": set(),
    "flow": {"times", "times_mean", "times_std", "time_shift", "base_tokens", "mean_flow_share"},
    "autoencoder": {"checkpoint"},
    "text": {"checkpoint"},
}


def differences(saved: Config, current: Config) -> dict[str, tuple[Any, Any]]:
    """Fields that differ, by name such as train.batch_size: (as saved, as it is now)."""
    changed = {}
    for section, before in saved.to_dict().items():
        for name, new in current.to_dict()[section].items():
            if before[name] != new:
                changed[f"{section}.{name}"] = before[name], new
    return changed


def _may_change(section: str, name: str) -> bool:
    return section not in _MAY_CHANGE or name in _MAY_CHANGE[section]


def check_same_meaning(saved: Config, current: Config, folder: Place) -> None:
    """Raises CheckpointError unless a run of `saved`, whose checkpoint is `folder`, can go on as `current`.

    The network, the process, the latents and the captions must be the same, whether shapes tell or not. The rate, the
    batch, the mesh and the draw of a flow's times may change.
    """
    changed = differences(saved, current)
    if fixed := [name for name in changed if not _may_change(*name.split("."))]:
        first, *more = fixed
        others = "".join(f"; {name}={changed[name][1]!r}, not {changed[name][0]!r}" for name in more)
        raise CheckpointError(
            f"{first}={changed[first][1]!r}, but {folder} was trained with {changed[first][0]!r}{others}: set "
            f"{'them' if more else 'it'} back to resume, or train in another workdir (init_from starts it from these "
            "weights)"
        )
    if saved.in_channels != current.in_channels:
        raise CheckpointError(
            f"data.image_channels={current.in_channels}, but {folder} was trained with {saved.in_channels}: set it "
            "back to resume, or train in another workdir"
        )
