"""What an extrapolation study is told, the runs that follow from it, and every check that needs no training."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import jax
import ml_collections

from experiments.sizes import Size, parse_size
from experiments.study.images import DRAWN
from experiments.study.methods import ARMS, BASES, Method, find_method
from ledit_jax.config import Config, check_image_size
from ledit_jax.config.parse import from_mapping
from ledit_jax.diffusion import make_process
from ledit_jax.errors import ConfigError
from ledit_jax.models import Network, abstract_params, make_apply, make_network
from ledit_jax.parallel.memory import check_fits, host_memory
from ledit_jax.parallel.mesh import data_mesh
from ledit_jax.sampling.requests import check_memory


@dataclass(frozen=True)
class StudyConfig:
    """A study. Every method has the experiment's data, budget, sampler and guidance; no method is tuned alone."""

    experiment: Config = field(default_factory=Config)
    """What all arms share; an arm replaces the fields that make the method (`methods.ARMS`)."""
    methods: tuple[str, ...] = ("dit", "rope", "ntk", "yarn", "riflex", "nope", "nope-causal", "nope-conv", "ledit")
    """Names of `methods.METHODS`, also without attention scaling, as in ledit-unscaled, with a flow's time shift, as in
    ledit-shift, and by another sampler with so many network calls, as in ledit@ddim-8."""
    sizes: tuple[str, ...] = ()
    """Images to draw, HEIGHTxWIDTH in pixels, as in 24x24."""
    seeds: tuple[int, ...] = (0,)
    """Of training and sampling; the tables give mean and spread over them."""
    steps: int = 3_000
    """Training steps of every arm (replaces experiment.train.num_steps)."""
    base_steps: int = 0
    """Steps of a DiT that every arm then starts from, one per seed (and process); 0 trains every arm from scratch."""
    base_learning_rate: float = 1e-3
    per_class: int = 20
    """Images of each class, size and method; of captions there are so many in all."""
    images: str = ""
    """For image_folder: class folders, or a zip of them, split into training and held-out images in the workdir."""
    judge_steps: int = 1_500
    """Training steps of the classifier of photographs; that of a drawn source has its own."""

    @property
    def trained_size(self) -> Size:
        """Height and width of the training images."""
        return self.experiment.data.image_height, self.experiment.data.image_width

    @property
    def image_sizes(self) -> tuple[Size, ...]:
        """`sizes` as (height, width). Raises ConfigError for one that is not written so."""
        return tuple(parse_size(size) for size in self.sizes)

    @property
    def images_per_cell(self) -> int:
        """Images of one method, size and seed."""
        return self.per_class * (1 if self.is_of_captions else self.experiment.model.num_classes)

    @property
    def is_of_captions(self) -> bool:
        """Whether images are asked for by captions, and not by classes."""
        return self.experiment.text.encoder != "none"

    @property
    def arms(self) -> tuple[str, ...]:
        """Sets of weights to train, in the order of the methods that need them; the base is not among them."""
        return tuple(dict.fromkeys(find_method(name).arm for name in self.methods))

    @property
    def bases(self) -> tuple[str, ...]:
        """The DiTs that the arms start from, names of `methods.BASES`; none if they are trained from scratch."""
        return tuple(dict.fromkeys(ARMS[arm].base for arm in self.arms)) if self.base_steps else ()

    @classmethod
    def from_dict(cls, values) -> "StudyConfig":
        """Builds and checks a study from nested mappings; raises ConfigError. `methods` may hold "a,b" or "a,"."""
        study = from_mapping(cls, values)
        names = tuple(name for item in study.methods for name in item.split(",") if name)
        study = dataclasses.replace(study, methods=names)
        check_study(study)
        return study

    def to_config_dict(self) -> ml_collections.ConfigDict:
        """For flags to override; what `configs/study_*.py` return."""
        return ml_collections.ConfigDict(dataclasses.asdict(self))


@dataclass(frozen=True)
class Study:
    """A study's settings and the places of its results."""

    config: StudyConfig
    workdir: Path

    def weights(self, arm: str, seed: int) -> Path:
        """The workdir of an arm's training run."""
        return self.workdir / "weights" / arm / f"seed-{seed}"

    def samples(self, method: str, seed: int, step: int | None = None) -> Path:
        """The folder of a method's images, of a checkpoint on the way if `step` says which."""
        if step is None:
            return self.workdir / "samples" / method / f"seed-{seed}"
        return self.workdir / "steps" / method / f"seed-{seed}" / str(step)


def arm_config(study: StudyConfig, arm: str, seed: int) -> Config:
    """The training config of an arm, or of the base. Raises ConfigError, naming the arm, if it cannot work."""
    settings = study.experiment.to_dict()
    chosen = BASES[arm] if arm in BASES else ARMS[arm]
    settings["model"] |= chosen.model
    if chosen.flow is not None:
        settings["diffusion"] |= {"objective": "flow"}
        settings["flow"] |= chosen.flow
    settings["sample"] |= chosen.sample
    if settings["model"]["conv"] == "none":
        settings["train"]["dilation_probability"] = 0.0
    settings["train"] |= {"num_steps": study.steps, "seed": seed} | chosen.train
    if arm in BASES:
        settings["train"] |= {"num_steps": study.base_steps, "learning_rate": study.base_learning_rate}
    try:
        return Config.from_dict(settings)
    except ConfigError as error:
        raise ConfigError(f"arm {arm}: {error}") from error


def sampling_options(study: StudyConfig, method: Method) -> dict:
    """SampleConfig fields that a method draws with: the experiment's, its process's, and its own switches."""
    return dataclasses.asdict(study.experiment.sample) | ARMS[method.arm].sample | method.sample


def check_study(study: StudyConfig) -> None:
    """Raises ConfigError for the first thing that cannot work, before anything is trained or read."""
    for name in ("methods", "sizes", "seeds"):
        values = getattr(study, name)
        if not values or len(set(values)) < len(values):
            raise ConfigError(f"{name}={values} must be one or more different ones")
    for name in ("steps", "per_class", "judge_steps"):
        if getattr(study, name) < 1:
            raise ConfigError(f"{name}={getattr(study, name)} must be at least 1")
    if study.base_steps < 0 or min(study.seeds) < 0:
        raise ConfigError(f"base_steps={study.base_steps} and seeds={study.seeds} must not be negative")
    if study.base_steps and study.base_learning_rate <= 0:
        raise ConfigError(f"base_learning_rate={study.base_learning_rate} must be greater than 0")
    methods = {name: find_method(name) for name in study.methods}
    for size, (height, width) in zip(study.sizes, study.image_sizes, strict=True):
        channels = study.experiment.data.image_channels
        what = f"per_class={study.per_class} images of size {size}"
        check_fits(what, study.images_per_cell * height * width * channels, host_memory(), "draw fewer or smaller ones")
        try:
            check_image_size(height, width, study.experiment.granularity)
        except ConfigError as error:
            raise ConfigError(f"size {size}: {error}") from error
    checked = set()
    for name, method in methods.items():
        _check_method(study, name, method, checked)
    _check_source(study)


def _check_method(study: StudyConfig, name: str, method: Method, checked: set[Network]) -> None:
    """That the method's weights can be had, and that its network runs at every size; those in `checked` do."""
    if study.base_steps and not ARMS[method.arm].from_dit:
        raise ConfigError(
            f"method {name} cannot start from a DiT, its blocks hold other arrays: leave it out, or set base_steps=0, "
            "which trains every method from scratch"
        )
    settings = arm_config(study, method.arm, 0).to_dict()
    # The last block of any depth runs like the second: shapes at two blocks are those of the whole.
    settings["model"]["depth"] = 2
    settings["sample"] |= sampling_options(study, method)
    try:
        config = Config.from_dict(settings)
        process = make_process(config)
        network = make_network(config, process).for_sampling(config.sample)
    except ConfigError as error:
        raise ConfigError(f"method {name}: {error}") from error
    if network in checked:
        return
    checked.add(network)
    apply, params = make_apply(network), abstract_params(network)
    condition = jax.eval_shape(lambda: network.condition.null(1))
    times = jax.eval_shape(lambda key: process.fed_times(process.draw_times(key, 1)), jax.random.key(0))
    mesh = data_mesh(jax.local_devices()[:1])
    for height, width in study.image_sizes:
        try:
            check_memory(config, network, mesh, config.sample, 1, 1, height, width)
        except ConfigError as error:
            raise ConfigError(f"size {height}x{width}: {error}") from error
        x = jax.ShapeDtypeStruct((1, *config.latent_shape(height, width)), "float32")
        try:
            jax.eval_shape(apply, params, x, times, condition)
        except (TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"method {name} cannot run at {height}x{width}: {reason}") from error


def _check_source(study: StudyConfig) -> None:
    source = study.experiment.data.source
    if source not in (*DRAWN, "scenes", "image_folder"):
        raise ConfigError(
            f"experiment.data.source={source} has no real images at other sizes to compare with: "
            f"use {', '.join(DRAWN)}, scenes or image_folder"
        )
    if (source == "scenes") != study.is_of_captions:
        raise ConfigError(
            f"experiment.data.source={source} with experiment.text.encoder={study.experiment.text.encoder}: captions "
            "are asked for, and judged, of scenes alone"
        )
    if study.experiment.autoencoder.kind != "none":
        raise ConfigError("experiment.autoencoder.kind=sd: the study compares pixels, use none")
    if source != "image_folder" and study.images:
        raise ConfigError(f"images={study.images} is for image_folder, and experiment.data.source={source}")
    if source == "image_folder" and not (study.images and Path(study.images).exists()):
        raise ConfigError(f"images={study.images!r} does not exist: give a folder of class folders, or a zip of it")
