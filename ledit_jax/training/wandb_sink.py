"""A run's metrics in Weights & Biases, for those who have its package installed."""

import importlib.util
import logging
import uuid
from pathlib import Path
from typing import Any

from ledit_jax.config import Config
from ledit_jax.errors import ConfigError
from ledit_jax.files import write_whole

logger = logging.getLogger(__name__)

ID_FILE = "wandb_id"


class WandbSink:
    """Sends every logged step to a project; a run that resumes in its workdir goes on as the same one there.

    Raises ConfigError where the package is not installed, and, when it opens, where it does not start, as without a
    key. What fails later is logged once and stops nothing: the metrics are in metrics.jsonl as well.
    """

    def __init__(self, project: str, config: Config):
        if importlib.util.find_spec("wandb") is None:
            raise ConfigError("wandb is not installed: `pip install wandb`, or leave wandb out")
        self._project, self._config = project, config
        self._run: Any = None

    def open(self, workdir: Path, resumed_step: int) -> None:
        import wandb  # which takes a second, and is asked for by few

        place = workdir / ID_FILE
        if not place.exists():
            write_whole(place, uuid.uuid4().hex[:8])
        settings = dict(project=self._project, name=workdir.name, id=place.read_text().strip(), resume="allow")
        try:
            self._run = wandb.init(dir=str(workdir), config=self._config.to_dict(), **settings)
        except Exception as error:  # its own kinds, and those of whatever it reaches for
            raise ConfigError(f"wandb does not start ({error!s:.200}): `wandb login`, or leave wandb out") from error

    def write(self, step: int, metrics: dict[str, float]) -> None:
        self._try(lambda: self._run.log(metrics, step=step))

    def close(self) -> None:
        self._try(lambda: self._run.finish())

    def _try(self, action: Any) -> None:
        if self._run is None:
            return
        try:
            action()
        except Exception as error:
            logger.warning(f"wandb failed, and gets no more: {error!s:.200}")
            self._run = None
