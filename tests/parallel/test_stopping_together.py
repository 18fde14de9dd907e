"""SIGTERM to a run of two processes whose data hangs in one of them: both end, and what is saved stays."""

import signal

from launch import Launch

from ledit_jax.weights import load_weights

RUN = """
import pathlib, sys, time
import jax
from ledit_jax import cli
from ledit_jax.parallel.processes import start_processes
from ledit_jax.training import stopping
from ledit_jax.training.loop import Run, train
from tiny import tiny_config
import numpy as np

class Hanging:
    num_classes, hanging = 10, 0

    def __len__(self):
        return 64

    def __getitem__(self, index):
        if jax.process_index() == 1 and (workdir / "checkpoints" / "20").exists():
            self.hanging += 1
            time.sleep(600)
        return {"image": np.full((8, 8, 1), index, np.uint8), "label": 0}

def wait(self, stop, wait_for_batch=Run.wait_for_batch):
    # All four threads that read hang, and what they had read before is used up.
    if self.loader.source.hanging == 4 and not any(self.loader.ready(0.05) for _ in range(20)):
        (workdir / "hangs").touch()
    return wait_for_batch(self, stop)

def main():
    Run.wait_for_batch = wait
    start_processes(address, 2, index, timeout=200)
    stopping.GRACE = 1.0
    train_settings = dict(num_steps=10_000, checkpoint_every=20, dilation_probability=0.0)
    config = tiny_config(model=dict(depth=1, block_order="ca"), train=train_settings)
    train(config, workdir, source=Hanging())

if __name__ == "__main__":
    workdir, address, index = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    sys.argv[1:] = []
    cli.run(main, "A test.")
"""


def test_a_step_that_does_not_end_is_not_waited_for_after_a_signal(tmp_path):
    workdir = tmp_path / "run"
    with Launch(RUN, tmp_path, "hangs", workdir, count=2, devices=1) as processes:
        processes.processes[0].wait_for((workdir / "hangs").exists)
        processes.processes[0].send_signal(signal.SIGTERM)  # of which the other one hears by jax
        # The first that leaves may take the other with it, by jax, in words and with a code of its own.
        assert 0 not in [processes.wait(index) for index in range(2)], processes.said()
    says = "error: stopped by a signal, and without another checkpoint, since a step did not end in"
    assert any(says in log.read_text() for log in processes.logs), processes.said()
    assert load_weights(workdir)[2] >= 20
