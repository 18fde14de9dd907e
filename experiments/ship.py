"""Exports the weights of a run as the repository ships them: the EMA alone, as a checkpoint of its own.

  python -m experiments.ship --checkpoint=runs/digits_flow/weights/ledit/seed-0 --out=runs/export/digits
  rm -r assets/digits && cp -r runs/export/digits assets/

An earlier export in --out is replaced.
"""

from pathlib import Path

from absl import flags

from ledit_jax import cli
from ledit_jax.errors import OutputError
from ledit_jax.files import written_aside
from ledit_jax.weights import export_weights, load_weights


def export(checkpoint: Path, out: Path) -> int:
    """Writes the EMA weights to `out` and returns their step. An earlier export there is replaced."""
    params, config, step = load_weights(checkpoint)
    if out.is_dir():
        steps = [path for path in out.iterdir() if (path / "ema").is_dir() and not (path / "params").exists()]
        if steps != list(out.iterdir()):
            raise OutputError(f"--out={out} holds something else than an export: choose another place")
    with written_aside(out) as aside:
        export_weights(aside, params, config, step)
        # Marks for object stores; they hold the path they were written to, and a folder on disk does without.
        for mark in aside.rglob("commit_success.txt"):
            mark.unlink()
    return step


def main() -> None:
    step = export(Path(_CHECKPOINT.value), Path(_OUT.value))
    print(f"exported step {step:,} to {_OUT.value}")


if __name__ == "__main__":
    _CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of train.py, or a checkpoint folder.")
    _OUT = flags.DEFINE_string("out", None, "Folder of the export.")
    cli.require("checkpoint", "out")
    cli.run(main, __doc__)
