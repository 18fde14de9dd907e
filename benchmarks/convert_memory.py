"""Peak memory and time of converting a DiT state dict, beside the size of the file.

  python benchmarks/convert_memory.py                     DiT-XL/2: 2.7 GB, twice, in the temporary folder
  python benchmarks/convert_memory.py --model=DiT-S/2     a quick look

The file holds random weights, which the converter cannot tell from trained ones. It runs in a process of its own, whose
peak resident memory the operating system reports.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from oracles import torch_dit  # noqa: E402

from ledit_jax.config import model_preset  # noqa: E402


def main() -> None:
    """Writes the file, converts it, prints one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="DiT-XL/2", help="a DiT preset (default: DiT-XL/2)")
    name = parser.parse_args().model
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "dit.pt"
        torch.save(torch_dit.torch_peer(model_preset(name), grid=(16, 16)).state_dict(), source)
        size = source.stat().st_size
        command = [sys.executable, "convert_torch_weights.py", f"--input={source}", f"--output={folder}/converted"]
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"{name}: file {size / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB ({peak / size:.2f}x), {seconds:.0f} s")


if __name__ == "__main__":
    main()
