"""A study's figures over the network's width, or over the grid of tokens it is trained on: what does more of it help?

  python -m experiments.study.scaling --out=runs/width --results=runs/48/results.json,runs/96/results.json

--results are the results.json of studies that differ in one thing: the width (and the heads with it), or the patch,
whose halving doubles the grid's side while images stay as they are. Printed are, for each method and size, the share
read right and the Fréchet distance, what the training had cost, and what a doubling multiplies the distance by (least
squares on logarithms). --out gets scaling.md and scaling.png, the distances. Nothing is trained here.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import flags
from flax.traverse_util import flatten_dict

from experiments.doublings import at_each_doubling
from experiments.sizes import Size, relative_size, size_name
from experiments.study.charts import lines_chart
from experiments.study.config import StudyConfig, arm_config
from experiments.study.methods import find_method
from experiments.study.results import METRICS, Results, read_results
from ledit_jax import cli
from ledit_jax.config.parse import from_mapping
from ledit_jax.diffusion import make_process
from ledit_jax.errors import ConfigError
from ledit_jax.evaluation.tables import markdown
from ledit_jax.files import write_whole
from ledit_jax.files.readers import read_json
from ledit_jax.flops import train_step_flops
from ledit_jax.models import abstract_params, make_network

SHOWN = ("accuracy", "frechet")
"""The figures in the cells."""
_FREE = {"width": ("width", "num_heads"), "side": ("patch_size",)}
"""ModelConfig fields that may differ, by what they scale."""
_TITLES = {"width": "width", "side": "side of the trained grid"}


@dataclass(frozen=True)
class Scaled:
    """One study of several that differ in their scale."""

    config: StudyConfig
    results: Results

    def value(self, scale: str) -> int:
        """Its width, or the side of its grid in tokens."""
        experiment = self.config.experiment
        return experiment.model.width if scale == "width" else experiment.token_grid()[0]

    def petaflops(self, method: str) -> float:
        """What the training of a method's weights had cost, without that of a common start, in 10^15 operations."""
        config = arm_config(self.config, find_method(method).arm, seed=0)
        network = make_network(config, make_process(config))
        step = train_step_flops(abstract_params(network), config.token_grid(), config.train.batch_size)
        return self.config.steps * step / 1e15


def read_scaled(path: Path) -> Scaled:
    """A study's results with its settings. Raises DataError for a file that has not both."""
    results = read_results(path)
    return Scaled(from_mapping(StudyConfig, read_json(path, fields={"study": dict})["study"]), results)


def find_scale(studies: Sequence[Scaled]) -> str:
    """Which scale they differ in. Raises ConfigError unless they differ in that alone."""
    scales = [scale for scale in _FREE if len({study.value(scale) for study in studies}) == len(studies) > 1]
    if len(scales) != 1:
        raise ConfigError("--results: give studies of two or more widths, or of two or more patches, one of each")
    (scale,) = scales
    first, *others = (_fixed(study, scale) for study in studies)
    for other in others:
        differing = [name for name in first if first[name] != other[name]]
        if differing:
            raise ConfigError(f"--results: the studies differ in {differing[0]} too, and not in {_TITLES[scale]} alone")
    return scale


def _fixed(study: Scaled, scale: str) -> dict:
    """Its settings by name, without those of the scale, the methods, and where its images lay."""
    settings = flatten_dict(dataclasses.asdict(study.config), sep=".")
    settings = {name.removeprefix("experiment."): value for name, value in settings.items()}
    left_out = {"methods", "images", "data.path", *(f"model.{field}" for field in _FREE[scale])}
    return {name: value for name, value in settings.items() if name not in left_out}


def scaling_table(studies: Sequence[Scaled], scale: str) -> str:
    """Markdown: methods and values down, sizes across; under each method what a doubling does to the distance."""
    rows, sizes = [], studies[0].results.sizes
    for method, label in studies[0].results.methods.items():
        for study in (study for study in studies if method in study.results.methods):
            cells = [_cell(study.results, method, size) for size in sizes]
            rows.append([label, f"{study.value(scale):,}", f"{study.petaflops(method):.3g}", *cells])
        factors = [at_each_doubling(*_line(studies, scale, method, size)) for size in sizes]
        rows.append([label, "each doubling", "", *(f"distance x {factor:.2f}" for factor in factors)])
    titles = [f"{size_name(size)} ({relative_size(size, studies[0].results.trained_size)})" for size in sizes]
    return markdown(["method", _TITLES[scale], "10^15 FLOPs", *titles], rows)


def _cell(results: Results, method: str, size: Size) -> str:
    entries = results.entries[method, size]
    return ", ".join(METRICS[metric][1].format(entries[metric].mean) for metric in SHOWN) if entries else "failed"


def _line(studies: Sequence[Scaled], scale: str, method: str, size: Size) -> tuple[list[int], list[float]]:
    """The values and the distances there; a study without the method is left out, and a cell that failed."""
    entries = [(study.value(scale), study.results.entries.get((method, size))) for study in studies]
    there = [(value, entry["frechet"].mean) for value, entry in entries if entry]
    return [value for value, _ in there], [distance for _, distance in there]


def write_scaling(studies: Sequence[Scaled], out: Path) -> None:
    """Writes scaling.md and scaling.png, and prints the table."""
    scale = find_scale(studies)
    studies = sorted(studies, key=lambda study: study.value(scale))
    first = studies[0].results
    table = scaling_table(studies, scale)
    write_whole(out / "scaling.md", table + "\n")
    lines = {
        label: {size: _line(studies, scale, method, size) for size in first.sizes}
        for method, label in first.methods.items()
    }
    lines_chart(lines, "frechet", first.trained_size, _TITLES[scale], out / "scaling.png", doublings=True)
    print(f"{table}\n\nWrote scaling.md and scaling.png to {out}")


def main() -> None:
    out = Path(_OUT.value)
    studies = [read_scaled(Path(path)) for path in _RESULTS.value]
    out.mkdir(parents=True, exist_ok=True)
    write_scaling(studies, out)


if __name__ == "__main__":
    _RESULTS = flags.DEFINE_list("results", None, "results.json of each study, or a page's file of that form.")
    _OUT = flags.DEFINE_string("out", None, "Folder of the table and the chart.")
    cli.require("results", "out")
    cli.run(main, __doc__)
