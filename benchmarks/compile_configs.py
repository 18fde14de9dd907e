"""Compiles the training step of every config for the TPU slice that its docstring names, and says what it needs there.

  python benchmarks/compile_configs.py                compiles what is missing, prints the table
  python benchmarks/compile_configs.py imagenet512    this config alone

Each is compiled by `train.py --compile_only`, in a process of its own, with no TPU present. For XL/2 it takes minutes.
Two configs with the same step are one program, compiled once. Results go to benchmarks/results/compile_configs.json
with the settings that were compiled, and a test holds the configs and their docstrings to them. After a change of the
code that the settings do not show, remove that file first.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report import Report  # noqa: E402
from ledit_jax.evaluation.tables import markdown  # noqa: E402

RESULTS = ROOT / "benchmarks/results/compile_configs.json"
SLICES = {
    "coco256_lemmdit": "v5e:4x4",
    "imagenet256": "v5e:4x4",
    "imagenet256_finetune": "v5e:4x4",
    "imagenet256_flow": "v5e:4x4",
    "imagenet256_flow_finetune": "v5e:4x4",
    "imagenet256_refined": "v5e:4x4",
    "imagenet512": "v5e:4x4",
    "imagenet512_finetune": "v5e:4x4",
}
"""The slice that each config is sized for."""
ELSEWHERE = {
    "digits": "a CPU",
    "glyphs": "a CPU",
    "own_pictures": "one GPU",
    "study_digits": "a CPU",
    "study_flow": "a CPU",
    "scenes": "a CPU",
    "study_glyphs": "a CPU",
    "study_scenes": "a CPU",
    "study_photos": "a CPU, or a GPU, for which nothing here compiles without one",
}
"""Configs that are sized for no TPU, and what they are for."""
VARIANTS = (
    ("imagenet256", "model.residual_dtype=same"),
    ("imagenet256", "model.remat=none"),
    ("imagenet256", "model.remat=full"),
    ("coco256_lemmdit", "model.remat=none"),
    ("imagenet512", "model.residual_dtype=float32"),
    ("imagenet512", "model.residual_dtype=float32", "model.remat=full"),
)
"""Configs with other settings, to weigh these against the configs' own."""
LARGER = (("coco256_lemmdit", "v6e:16x16", "mesh.data=4", "mesh.tensor=4"),)
"""Configs on another slice than their own, with settings that it needs."""


def settings_of(name: str, *overrides: str) -> dict:
    """What of a config its training step depends on."""
    config = importlib.import_module(f"configs.{name}").get_config().to_dict()
    for override in overrides:
        path, _, value = override.partition("=")
        section, key = path.split(".")
        config[section][key] = value
    found = {name: section for name, section in config.items() if name not in ("data", "train", "sample")}
    del found["model"]["conv_init"]  # of the first step's weights alone
    found["data"] = {key: config["data"][key] for key in ("image_height", "image_width", "image_channels")}
    found["train"] = {key: config["train"][key] for key in ("batch_size", "accumulation_steps", "grad_clip")}
    return json.loads(json.dumps(found))  # as it reads back


def compile_step(config: str, slice_name: str, *overrides: str) -> dict:
    """The report of `train.py --compile_only`. Raises RuntimeError with the last line of its errors if there is none.

    config: a file in configs/, perhaps with an argument: "imagenet256.py:LEDiT-S/2". overrides: "model.remat=dots".
    """
    command = [sys.executable, "train.py", f"--config=configs/{config}", f"--compile_only={slice_name}"]
    command += [f"--config.{override}" for override in overrides]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if result.returncode not in (0, 1) or not result.stdout:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr.strip().splitlines()[-1]}")
    return json.loads(result.stdout.splitlines()[-1])


def needs(row: dict) -> str:
    """As a config's docstring has it: "13.9 of the 15.75 GiB"."""
    return f"{row['needed_bytes'] / 2**30:.1f} of the {row['capacity_bytes'] / 2**30:.2f} GiB"


def compile_config(report: Report, name: str, *overrides: str, slice_name: str | None = None) -> dict:
    """The report of a config's step, or of another one's with the same program. slice_name: by default its own."""
    settings, key = settings_of(name, *overrides), " ".join((name, *overrides))
    if slice_name:
        key += f" on {slice_name}"
    slice_name = slice_name or SLICES[name]
    if key in report.results and not still_holds(report.results[key]["settings"], settings):
        del report.results[key]
    for other, row in report.results.items():
        other = other.partition(" on ")[0].split()
        known = other[0] in SLICES and row["topology"]["name"] == slice_name
        if known and still_holds(row["settings"], settings) and settings_of(*other) == settings:
            return report.get(key, lambda row=row: row)
    return report.get(key, lambda: compile_step(f"{name}.py", slice_name, *overrides) | {"settings": settings})


def still_holds(recorded: dict, settings: dict) -> bool:
    """Whether a result is of these settings; one that came later, whose default is what there was, changes nothing."""
    return all(
        settings.get(section, {}).get(key) == value
        for section, found in recorded.items()
        for key, value in found.items()
    )


def table_row(title: str, row: dict) -> list[str]:
    """A row of the table."""
    model, data, memory = row["settings"]["model"], row["settings"]["data"], row["memory"]
    what = [title, row["topology"]["name"], str(data["image_height"]), model["remat"], model["residual_dtype"]]
    needed = f"{row['needed_bytes'] / 2**30:.2f} of {row['capacity_bytes'] / 2**30:.2f} GiB"
    temporaries = f"{memory['temporaries'] / 2**30:.2f} GiB" if memory else "-"
    return [*what, needed, temporaries, f"{row['compile_seconds']:.0f} s", "yes" if row["fits"] else "no"]


def main() -> None:
    """Compiles what is missing, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", metavar="NAME", help="configs to compile (default: all)")
    parser.add_argument("--json", type=Path, default=RESULTS, metavar="PATH")
    args = parser.parse_args()
    unknown = [name for name in args.configs if name not in SLICES]
    if unknown:
        parser.error(f"{', '.join(unknown)}: use one or more of {', '.join(SLICES)}")
    report = Report(args.json, ("jax", "libtpu"))
    rows = []
    for name in args.configs or SLICES:
        rows.append(table_row(f"`{name}.py`", compile_config(report, name)))
    for name, *overrides in VARIANTS:
        if not args.configs or name in args.configs:
            title = f"{name}.py, {' '.join(overrides)}"
            rows.append(table_row(f"`{title}`", compile_config(report, name, *overrides)))
    for name, slice_name, *overrides in LARGER:
        if not args.configs or name in args.configs:
            title = f"{name}.py, {' '.join(overrides)}"
            rows.append(table_row(f"`{title}`", compile_config(report, name, *overrides, slice_name=slice_name)))
    header = ["config", "slice", "size", "remat", "residual", "HBM / chip", "of it temporaries", "compiled in", "fits"]
    print(f"{markdown(header, rows)}\n\n{report.heading()}")


if __name__ == "__main__":
    main()
