"""Python code run by several processes at once, each with CPU devices of its own, as a run over several hosts is."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from tiny import cpu_devices

ROOT = Path(__file__).parents[1]
PATIENCE = 240  # seconds; a launch takes about 8 on two quiet cores


def free_address() -> str:
    """host:port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Launch:
    """`count` processes that run `script` with `arguments`, the coordinator's address and their index.

    slurm: joined by what SLURM would set, and not by the address, which is then "".
    """

    def __init__(
        self, script: str, folder: Path, name: str, *arguments: object, count: int, devices: int, slurm: bool = False
    ):
        file, address = folder / "run.py", free_address()
        file.write_text(script)
        self.logs = [folder / f"{name}-{index}.log" for index in range(count)]
        self.processes = []
        for index, log in enumerate(self.logs):
            environment = os.environ | {
                "JAX_PLATFORMS": "cpu",
                # Little optimised: what is compiled anew in every process runs a few steps only.
                "XLA_FLAGS": cpu_devices(devices),
                "PYTHONPATH": os.pathsep.join([f"{ROOT / 'tests'}", f"{ROOT}", os.environ.get("PYTHONPATH", "")]),
            }
            if slurm:
                environment |= {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": str(count)}
                environment |= {"SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)}
                environment |= {"JAX_COORDINATOR_PORT": address.rpartition(":")[2]}
            joining = ["" if slurm or count == 1 else address, index]
            command = [sys.executable, file, *map(str, [*arguments, *joining])]
            with log.open("w") as output:
                self.processes.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))

    def __enter__(self) -> "Launch":
        return self

    def __exit__(self, *error) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def wait(self, index: int) -> int:
        return self.processes[index].wait(PATIENCE)

    def said(self) -> str:
        return "\n".join(log.read_text()[-3000:] for log in self.logs)

    def run_to_the_end(self) -> list[str]:
        """What each process printed; all have to end with 0."""
        with self:
            assert [self.wait(index) for index in range(len(self.processes))] == [0] * len(self.processes), self.said()
        return [log.read_text() for log in self.logs]
