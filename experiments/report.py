"""The report on a model of the embedded images: what it draws at sizes that it was never trained on.

A judge trained on real images alone reads the samples; the same figures for real held-out images stand beside.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import scipy.ndimage
from jaxtyping import Int, UInt8

from experiments.judge import ImageClassifier
from experiments.plots import loss_curve
from ledit_jax.config import AutoencoderConfig, DataConfig
from ledit_jax.data.catalog import make_source
from ledit_jax.errors import ConfigError
from ledit_jax.evaluation.frechet import frechet_distance, gaussian_statistics
from ledit_jax.evaluation.neighbours import precision_recall
from ledit_jax.evaluation.tables import markdown
from ledit_jax.sampling.sheets import Panel, save_sheet

Size = tuple[int, int]
"""Height and width in pixels."""
Draw = Callable[[int, int, np.ndarray, int, str], np.ndarray]
"""draw(height, width, labels int [B], seed, progress_label) -> uint8 [B, height, width, C]."""

JUDGE_SIZES: tuple[Size, ...] = ((16, 16), (24, 24), (32, 32), (16, 32), (32, 16))
"""What the judge is trained on; fixed, so that every report on a source has the same judge."""
MAX_REAL = 1500
"""Most real images taken from a split: all of the digits, and enough of the shapes."""


@dataclass(frozen=True)
class Samples:
    """Images of one size and the labels they were asked for; class by class in columns, when laid out in rows."""

    images: UInt8[np.ndarray, "N h w C"]
    labels: Int[np.ndarray, " N"]

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        return self.images.shape[1], self.images.shape[2]


@dataclass(frozen=True)
class Row:
    """Figures for samples of one size. Shares are 0 to 1; `real_*` is the same for real held-out images."""

    height: int
    width: int
    tokens: int
    relative: str
    num_samples: int
    accuracy: float
    """Share that the judge reads as the class asked for."""
    real_accuracy: float
    frechet: float
    """Distance to the real training images rendered at this size, in the judge's features."""
    real_frechet: float
    """The same for as many held-out images: what a perfect model would get."""
    precision: float
    """Share of samples among the real training images of this size, by nearest neighbours in those features."""
    real_precision: float
    recall: float
    """Share of real training images among the samples."""
    real_recall: float
    objects: float | None
    """Mean connected components per image (shapes only, where a real image has exactly 1)."""


@functools.cache  # comparing methods needs the same ones again and again, and they are small
def real_images(source: str, height: int, width: int, split: str) -> Samples:
    """The first MAX_REAL real images of an embedded source, grey [N, height, width, 1], with their labels."""
    if source not in ("digits", "shapes"):
        raise ConfigError(f"data.source={source} cannot be drawn at any size: the report needs digits or shapes")
    data = DataConfig(source=source, split=split, image_height=height, image_width=width, image_channels=1)
    images = make_source(data, AutoencoderConfig())
    records = [images[index] for index in range(min(len(images), MAX_REAL))]
    return Samples(np.stack([r["image"] for r in records]), np.array([r["label"] for r in records]))


def train_judge(source: str, seed: int = 0) -> ImageClassifier:
    """A classifier of a source's training images, at every size of JUDGE_SIZES."""
    sets = [real_images(source, height, width, "train") for height, width in JUDGE_SIZES]
    return ImageClassifier.train([(s.images, s.labels) for s in sets], seed)


def draw_samples(draw: Draw, sizes: Sequence[Size], num_classes: int, per_class: int, seed: int) -> list[Samples]:
    """Draws `per_class` images of every class at every size: one row of all classes after the other."""
    labels = np.tile(np.arange(num_classes), per_class)
    samples = []
    for height, width in sizes:
        images = draw(height, width, labels, seed, f"{height}x{width}")
        if images.dtype != np.uint8 or images.shape[:3] != (len(labels), height, width):
            raise ConfigError(
                f"draw returned {images.dtype} {images.shape} for {len(labels)} labels at {height}x{width}: "
                f"return uint8 [{len(labels)}, {height}, {width}, C]"
            )
        samples.append(Samples(images, labels))
    return samples


def measure(
    samples: Sequence[Samples], judge: ImageClassifier, source: str, trained_size: Size, granularity: int
) -> list[Row]:
    """Reads samples of a source's classes with its judge: one row per size.

    `trained_size` is what the model was trained on, `granularity` the pixels per token side (`Config.granularity`).
    """
    return [_measure_size(s, judge, source, trained_size, granularity) for s in samples]


def _measure_size(samples: Samples, judge: ImageClassifier, source: str, trained_size: Size, granularity: int) -> Row:
    height, width = samples.size
    train, test = (real_images(source, height, width, split) for split in ("train", "test"))
    real = judge.features(train.images).astype(np.float32)
    reference = gaussian_statistics(real)
    # The distance grows as sets shrink, so the floor is taken on as many images, spread over the classes.
    count = min(len(samples.labels), len(test.labels))
    spread = np.argsort(test.labels, kind="stable")[np.linspace(0, len(test.labels) - 1, count).astype(int)]
    features = [judge.features(x).astype(np.float32) for x in (samples.images, test.images[spread])]
    drawn, held_out = (gaussian_statistics(x) for x in features)
    (precision, recall), (real_precision, real_recall) = (precision_recall(real, x) for x in features)
    return Row(
        height=height,
        width=width,
        tokens=(height // granularity) * (width // granularity),
        relative=relative_size((height, width), trained_size),
        num_samples=len(samples.labels),
        accuracy=judge.accuracy(samples.images, samples.labels),
        real_accuracy=judge.accuracy(test.images, test.labels),
        frechet=frechet_distance(*drawn, *reference),
        real_frechet=frechet_distance(*held_out, *reference),
        precision=precision,
        real_precision=real_precision,
        recall=recall,
        real_recall=real_recall,
        objects=count_objects(samples.images) if source == "shapes" else None,
    )


def relative_size(size: Size, trained_size: Size) -> str:
    """ "1.5x" where both sides grow by 1.5; the aspect, width to height as in "2:1", where they grow unequally."""
    if size[0] * trained_size[1] == size[1] * trained_size[0]:
        return f"{size[0] / trained_size[0]:.3g}x"
    aspect = Fraction(size[1], size[0])
    return f"{aspect.numerator}:{aspect.denominator}"


def count_objects(images: UInt8[np.ndarray, "B h w C"]) -> float:
    """Mean number of connected regions (over sides and corners) brighter than half of full intensity."""
    return float(np.mean([scipy.ndimage.label(i > 127.5, np.ones((3, 3)))[1] for i in images.mean(axis=-1)]))


def report_table(rows: Sequence[Row]) -> str:
    """Markdown: sizes down, figures across, each beside that of real held-out images."""
    header = ["height x width", "relative", "tokens", "read right", "real: read right", "Frechet", "real: Frechet"]
    header += ["precision", "real: precision", "recall", "real: recall"]
    lines = [
        [f"{r.height}x{r.width}", r.relative, f"{r.tokens}"]
        + [f"{share:.1%}" for share in (r.accuracy, r.real_accuracy)]
        + [f"{distance:.2f}" for distance in (r.frechet, r.real_frechet)]
        + [f"{share:.1%}" for share in (r.precision, r.real_precision, r.recall, r.real_recall)]
        for r in rows
    ]
    if any(r.objects is not None for r in rows):
        header.append("objects")
        lines = [[*line, f"{r.objects:.2f}"] for line, r in zip(lines, rows, strict=True)]
    return markdown(header, lines)


def comparison_table(results: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """Markdown: methods down, sizes across, "share read right (Frechet)" in the cells; real images come last.

    Raises ConfigError unless every method was measured at the same sizes.
    """
    first_name, first = results[0]
    sizes = [(r.height, r.width) for r in first]
    for name, rows in results:
        if [(r.height, r.width) for r in rows] != sizes:
            found = [(r.height, r.width) for r in rows]
            raise ConfigError(f"sizes={found} of {name} are not those of {first_name}, {sizes}: measure the same")
    lines = [[name] + [f"{r.accuracy:.1%} ({r.frechet:.2f})" for r in rows] for name, rows in results]
    lines.append(["real held-out images"] + [f"{r.real_accuracy:.1%} ({r.real_frechet:.2f})" for r in first])
    return markdown(["method"] + [f"{r.height}x{r.width} ({r.relative})" for r in first], lines)


def write_report(
    rows: Sequence[Row],
    samples: Sequence[Samples],
    out_dir: str | Path,
    class_names: Sequence[str],
    metrics: Mapping[str, str | Path],
    rows_shown: int = 6,
) -> None:
    """Writes report.md, report.json, sheet.png, samples-HxW.png and loss.png to `out_dir`, and prints the table.

    `samples` are those that `rows` were measured on, from `draw_samples`; `metrics` is name -> metrics.jsonl.
    """
    out_dir, columns = Path(out_dir), len(class_names)
    panels = [_panel(row, s.images[: rows_shown * columns], columns) for row, s in zip(rows, samples, strict=True)]
    save_sheet(panels, out_dir / "sheet.png", class_names)
    for row, panel in zip(rows, panels, strict=True):
        save_sheet(
            [panel], out_dir / f"samples-{row.height}x{row.width}.png", class_names, scale=max(1, 96 // row.height)
        )
    loss_curve(metrics, out_dir / "loss.png")
    table = report_table(rows)
    notes = (
        f"{rows[0].num_samples} samples per size. Read right: the share that a classifier trained on real images "
        "reads as the class asked for. Frechet: distance to real training images rendered at that size, in the "
        "classifier's features (lower is better). Precision and recall: the share of samples among real training "
        "images, and of these among samples, by the third nearest neighbour. Real: the same figures for real "
        "held-out images."
    )
    if rows[0].objects is not None:
        notes += " Objects: mean connected shapes per image; a real one has exactly 1."
    files = "\n\n".join(f"![{name}]({name}.png)" for name in ("sheet", "loss"))
    (out_dir / "report.md").write_text(f"# Samples by size\n\n{table}\n\n{notes}\n\n{files}\n")
    (out_dir / "report.json").write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n")
    print(f"{table}\n\n{notes}\n\nWrote report.md, report.json, sheet.png, samples-*.png and loss.png to {out_dir}")


def _panel(row: Row, images: UInt8[np.ndarray, "N h w C"], columns: int) -> Panel:
    trained = ", as trained" if row.relative == "1x" else ""
    figures = f"{row.tokens} tokens   |   {row.accuracy:.1%} read right   |   Frechet {row.frechet:.2f}"
    return Panel(f"{row.height} x {row.width}   ({row.relative}{trained})", figures, images, columns)
