"""The training loop: from a validated config and a workdir to a trained state. The same call again resumes."""

import contextlib
import logging
import math
from collections.abc import Sequence

import jax

from ledit_jax.config import Config
from ledit_jax.data import Source, make_loader
from ledit_jax.diffusion import Process
from ledit_jax.errors import TrainingStopped
from ledit_jax.files import Place, as_place, check_place
from ledit_jax.files.mirror import Mirror
from ledit_jax.flops import model_flops_utilization, train_step_flops
from ledit_jax.models import Network, count_params
from ledit_jax.parallel.mesh import make_mesh
from ledit_jax.parallel.processes import is_main_process
from ledit_jax.parallel.sharding import batch_share
from ledit_jax.training.checkpoint import TrainCheckpointer
from ledit_jax.training.hooks import Hook
from ledit_jax.training.init_from import inherit_about, init_from_checkpoint, run_lineage, run_seed
from ledit_jax.training.inputs import check_latents, check_model_fits, data_constants, unset_constants
from ledit_jax.training.lock import claimed
from ledit_jax.training.metrics import METRICS_FILE, MetricSink, MetricWriter, Progress, Stopwatch, is_logged
from ledit_jax.training.profile import Profiler
from ledit_jax.training.program import TrainProgram
from ledit_jax.training.run_info import record_start
from ledit_jax.training.state import TrainState
from ledit_jax.training.step import Batch, draw_dilation
from ledit_jax.training.stopping import StopRequest, stop_request
from ledit_jax.training.summary import summarise
from ledit_jax.training.wandb_sink import ID_FILE

logger = logging.getLogger(__name__)


class Run:
    """What a run holds besides its state: mesh, compiled step, data, checkpoints and metrics."""

    def __init__(
        self,
        config: Config,
        workdir: Place,
        source: Source | None = None,
        network: Network | None = None,
        process: Process | None = None,
        init_from: str | None = None,
        resume_from: int | None = None,
    ):
        self.config, self.workdir, self.init_from = config, workdir, init_from
        self.lineage = run_lineage(workdir, init_from, resume_from)
        self.seed = run_seed(config.train.seed, self.lineage)
        self.mesh = make_mesh(config.mesh)
        check_model_fits(config, self.mesh)
        self.program = TrainProgram(config, self.mesh, network, process)
        check_latents(config)
        condition, (share, num_shares) = self.program.network.condition, batch_share(self.mesh)
        self.loader = make_loader(
            config.data,
            config.autoencoder,
            condition=condition.from_record,
            batch_size=config.train.batch_size // num_shares,
            seed=config.train.seed,
            lineage=self.lineage,
            process_index=share,
            process_count=num_shares,
            source=source,
        )
        condition.check_source(self.loader.source)
        self.data_wait = Stopwatch()
        self.flops = train_step_flops(self.program.state.params, config.token_grid(), config.train.batch_size)
        self.key = jax.random.key(self.seed)
        self.dropped_before = 0

    def start(self, resume_from: int | None = None) -> TrainState:
        """The newest checkpoint's state if there is one, else a fresh state, from `init_from`'s weights if given."""
        self.checkpointer = TrainCheckpointer(self.workdir, self.config, self.lineage)
        constants = data_constants(self.program.network, self.loader.source)
        if (chosen := self.checkpointer.choose(resume_from)) is not None:
            state, data_states = self.checkpointer.restore(self.program.state, chosen, went_back=chosen == resume_from)
            self.loader.set_states(data_states)
            unset_constants(state.params, constants, f"{self.workdir}")
            self.dropped_before = int(state.nonfinite_steps)
            logger.info(f"resumed {self.workdir} at step {int(state.step)}")
            return state
        params = None
        if self.init_from:
            params, report = init_from_checkpoint(
                self.init_from, self.config, self.key, self.mesh, network=self.program.network
            )
            logger.info(str(report))
            constants = unset_constants(params, constants, f"init_from={self.init_from}")
            inherit_about(self.init_from, self.checkpointer.directory, self.config)
        return self.program.init(self.key, params, constants)

    def wait_for_batch(self, stop: StopRequest) -> bool:
        """False where the run is asked to stop before there is one: data may come from a disk that does not answer."""
        with self.data_wait:
            while not self.loader.ready(timeout=0.5):
                if stop.received:
                    return False
        return True

    def next_batch(self) -> Batch:
        """This process's share of the next batch, as global arrays."""
        with self.data_wait:
            batch = next(self.loader)
        sharding = self.program.batch_sharding
        return jax.tree.map(lambda value: jax.make_array_from_process_local_data(sharding, value), batch)

    def health(self, steps_per_sec: float) -> dict[str, float]:
        """Speed and supply since the last call; no `mfu` on a device whose peak is not known."""
        mfu = model_flops_utilization(self.flops * steps_per_sec, jax.devices()[0].device_kind, self.mesh.size)
        return {
            "steps_per_sec": steps_per_sec,
            "images_per_sec": steps_per_sec * self.config.train.batch_size,
            "data_wait_share": self.data_wait.share(),
            "bad_records": self.loader.bad_records,
        } | ({} if mfu is None else {"mfu": mfu})

    def save(self, state: TrainState) -> None:
        """Starts a checkpoint of the state and the data position."""
        self.check_claim()
        self.mirror.upload()
        self.checkpointer.save(state, self.loader.get_state())


def train(
    config: Config,
    workdir: str | Place,
    *,
    init_from: str | None = None,
    resume_from: int | None = None,
    source: Source | None = None,
    network: Network | None = None,
    process: Process | None = None,
    hooks: Sequence[Hook] = (),
    sinks: Sequence[MetricSink] = (),
    profile: tuple[int, int] | None = None,
) -> TrainState:
    """Trains until `config.train.num_steps`, SIGTERM, SIGHUP or SIGINT, and leaves a checkpoint either way.

    workdir: holds checkpoints, metrics.jsonl and TensorBoard events; it may be gs://bucket/run. If it has a checkpoint,
    the run resumes there, bit for bit. init_from: a checkpoint whose weights start a new run; with the seed of the run
    before, it still draws other batches, times and noise. resume_from: the step of a checkpoint to go back to, once;
    newer ones are moved to workdir/set_aside. source, network, process: in the place of those that the config
    describes. hooks: what else to do every so often. sinks: where else metrics go. profile: (first step, number of
    steps) to trace into workdir/profile. Raises ConfigError, CheckpointError, or OutputError for a workdir that another
    run trains in, before anything compiles, and TrainingStopped after too many non-finite steps.
    """
    check_place(workdir, ("gs",))
    run = Run(config, as_place(workdir), source, network, process, init_from, resume_from)
    with claimed(run.workdir) as run.check_claim:
        state = run.start(resume_from)
        step = int(state.step)
        logger.info(summarise(config, run.workdir, run.mesh, run.loader.source, count_params(state.params), step))
        return _run_and_save(run, state, hooks, sinks, profile)


def _run_and_save(run: Run, state: TrainState, hooks, sinks, profile) -> TrainState:
    """Steps until the end or a signal, and saves; returns once all is on the disk."""
    step, num_steps = int(state.step), run.config.train.num_steps
    run.mirror = Mirror(run.workdir, [METRICS_FILE, ID_FILE] if is_main_process() else [])
    profiler = Profiler(run.mirror.folder / "profile", profile, step)
    writer, progress = None, None
    if is_main_process():
        record_start(run.workdir, run.config, step)
        writer, progress = MetricWriter(run.mirror.folder, step, sinks), Progress(step, num_steps)
    with contextlib.closing(run.mirror), stop_request() as stop:  # until the very end: a signal is often sent twice
        try:
            with contextlib.closing(profiler):
                state = _run_steps(run, state, writer, progress, profiler, stop, hooks)
            run.save(state)
        finally:
            if is_main_process():
                progress.close()
                writer.close()
            run.loader.close()
            run.checkpointer.wait()
            run.checkpointer.close()
        what = "finished" if int(state.step) >= num_steps else "stopped"
        logger.info(f"{what} at step {int(state.step)}, saved in {run.workdir}")
    return state


def _run_steps(run: Run, state: TrainState, writer, progress, profiler, stop: StopRequest, hooks) -> TrainState:
    """Steps until the end or a signal. Metrics are read one step late, so that the device never waits for Python."""
    config = run.config.train
    pending = None
    for step in range(int(state.step), config.num_steps):
        with stop.bounded():
            if not run.wait_for_batch(stop):
                break
            dilation = draw_dilation(config, run.seed, step)
            profiler.before(step)
            state, metrics = run.program.step(state, run.next_batch(), run.key, dilation, is_logged(config, step + 1))
            profiler.after(step, metrics)
            if pending:
                _report(run, *pending, writer, progress)
            pending = (step + 1, metrics)
            if is_saved := (step + 1) % config.checkpoint_every == 0:
                _report(run, *pending, writer, progress)  # what is saved is judged first
                pending = None
        if is_saved:
            run.save(state)
        for hook in (hook for hook in hooks if (step + 1) % hook.every == 0):
            values = hook.run(state.ema, step + 1)
            if values and writer:
                writer.write(step + 1, values)
        if stop.reached(step + 1):
            break
    if pending:
        _report(run, *pending, writer, progress)
    return state


def _report(run: Run, step: int, metrics: dict[str, jax.Array], writer, progress) -> None:
    """Shows and writes a step's metrics, in the main process; raises TrainingStopped, in all of them, if too many
    steps were not finite."""
    run.checkpointer.check()
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    dropped = int(values["nonfinite_steps"]) - run.dropped_before
    if dropped > run.config.train.max_nonfinite_steps:
        raise TrainingStopped(_why_stopped(run, step, values, dropped))
    if not is_main_process():
        return
    progress.advance(step, values["loss"])
    if is_logged(run.config.train, step):
        rate = progress.rate(step)
        writer.write(step, values | run.health(rate))
        progress.log(step, values["loss"], rate)
        run.mirror.upload(at_once=False)


def _why_stopped(run: Run, step: int, values: dict[str, float], dropped: int) -> str:
    """A checkpoint counts as good once the step after it was finite: until then its weights may be huge."""
    run.checkpointer.wait()
    good = [saved for saved in run.checkpointer.steps() if saved < step - 1]
    where = run.checkpointer.directory / str(good[-1]) if good else "none was written yet"
    what = f"loss {values['loss']}, gradient norm {values['grad_norm']}"
    if math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"]):
        what += f", and weights that are not finite (train.learning_rate={run.config.train.learning_rate})"
    return (
        f"step {step}: {what}; the update was not applied. {dropped} steps since the start were so, and "
        f"train.max_nonfinite_steps={run.config.train.max_nonfinite_steps}. Last good checkpoint: {where}"
    )
