"""The training of a study's arms: each (arm, seed) a run in a folder of its own, a finished one left as it is."""

import logging
from collections.abc import Iterator
from pathlib import Path

import jax

from experiments.study.config import Study, arm_config
from experiments.study.methods import ARMS, BASES
from ledit_jax.config import Config
from ledit_jax.errors import CheckpointError, OutputError, named
from ledit_jax.files import differences
from ledit_jax.training.loop import train
from ledit_jax.weights import find_checkpoint, load_description

logger = logging.getLogger(__name__)

# Settings of a run that do not change what it learns; of the data, where they lie and who reads them.
_BOOKKEEPING = {
    "train": ("log_every", "checkpoint_every", "keep_last", "keep_every", "sample_every", "max_nonfinite_steps"),
    "data": ("path", "num_workers", "max_bad_share"),
}
# Settings of a model that change nothing where its other settings leave no place for them.
_UNUSED = {
    "scan": lambda model: model.block_order == "sa",
    "conv_init": lambda model: model.conv == "none",
}


class Interrupted(Exception):
    """A signal ended training; all of it is saved."""


def check_arms(study: Study) -> None:
    """Raises OutputError if a folder of weights was trained with other settings than this study's."""
    for seed in study.config.seeds:
        for arm in _runs(study):
            _check_is_ours(study, arm, seed)


def _runs(study: Study) -> Iterator[str]:
    """The arms in the order of training; the bases come first, if there are any."""
    yield from study.config.bases
    yield from study.config.arms


def _check_is_ours(study: Study, arm: str, seed: int) -> None:
    done = _trained(study.weights(arm, seed))
    if done is None:
        return
    differ = differences(_what_is_learned(done[1]), _what_is_learned(arm_config(study.config, arm, seed)))
    if differ:
        raise OutputError(
            f"{study.weights(arm, seed)} was trained with other settings than this study's ({'; '.join(differ[:3])}): "
            "choose another --workdir, or remove that folder"
        )


def _what_is_learned(config: Config) -> dict[str, dict]:
    settings = config.to_dict()
    for name, unused in _UNUSED.items():
        if unused(config.model):
            del settings["model"][name]
    return {
        section: {k: v for k, v in settings[section].items() if k not in _BOOKKEEPING.get(section, ())}
        for section in ("model", "diffusion", "flow", "data", "train")
    }


def _trained(workdir: Path) -> tuple[int, Config] | None:
    """(step, config) of a run's newest checkpoint, or None where there is none that can be read."""
    try:
        description = load_description(find_checkpoint(workdir))
    except CheckpointError:
        return None
    return description["step"], Config.from_dict(description["config"])


def train_arms(study: Study, seed: int) -> dict[str, str]:
    """Trains what is not finished, the bases first; returns the errors of arms that failed."""
    failed = {}
    for arm in _runs(study):
        base = ARMS[arm].base if arm not in BASES and study.config.base_steps else None
        if base in failed:
            failed[arm] = failed[base]
            continue
        try:
            _train_arm(study, arm, seed, str(study.weights(base, seed)) if base else None)
        except Interrupted:
            raise
        except Exception as error:  # whatever it is, the other arms can do without this one
            failed[arm] = f"training {arm}: {named(error)}"
            logger.error(f"seed {seed}: {failed[arm]}")
    return failed


def _train_arm(study: Study, arm: str, seed: int, init_from: str | None) -> None:
    config, workdir = arm_config(study.config, arm, seed), study.weights(arm, seed)
    done = _trained(workdir)
    if done is not None and done[0] == config.train.num_steps:
        logger.info(f"{arm}, seed {seed}: trained already")
        return
    logger.info(f"-- training {arm}, seed {seed}, in {workdir}")
    state = train(config, workdir, init_from=init_from)
    if int(state.step) < config.train.num_steps:
        raise Interrupted(f"stopped while training {arm}, seed {seed}: the same command goes on from there")
    jax.clear_caches()  # the next arm's programs are others
