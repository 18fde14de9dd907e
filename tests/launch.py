"""Python code run by several processes at once, each with CPU devices of its own, as a run over several hosts is."""

import socket
from pathlib import Path

from script_runs import Script, run
from tiny import cpu_devices

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
            # Little optimised: what is compiled anew in every process runs a few steps only.
            environment = {"XLA_FLAGS": cpu_devices(devices)}
            if slurm:
                environment |= {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": str(count)}
                environment |= {"SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)}
                environment |= {"JAX_COORDINATOR_PORT": address.rpartition(":")[2]}
            joining = ["" if slurm or count == 1 else address, index]
            self.processes.append(Script([file, *arguments, *joining], log, log, **environment))

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


def run_on_eight_devices(script: str, folder: Path, *arguments: object) -> str:
    """Standard output of Python code run in a process of its own: the number of devices is fixed when jax starts."""
    file = folder / "on_eight_devices.py"
    file.write_text(script)
    result = run(str(file), *map(str, arguments), XLA_FLAGS=cpu_devices(8))
    assert result.returncode == 0, result.stderr
    return result.stdout
