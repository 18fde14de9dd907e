"""The FID figures of the paper's tables (arXiv 2503.04344), to stand beside ours: 50,000 samples, guidance 1.5."""

from collections.abc import Sequence

from experiments.sizes import Size
from ledit_jax.evaluation.suite import format_metric

FID: dict[int, dict[str, dict[Size, float]]] = {
    256: {
        "DiT, sin/cos": {(256, 256): 2.27, (384, 384): 87.03, (448, 448): 168.23, (512, 512): 213.77},
        "DiT, RoPE": {(256, 256): 2.33},
        "VisionNTK": {(384, 384): 71.23, (448, 448): 184.29, (512, 512): 246.56},
        "VisionYaRN": {
            **{(384, 384): 13.51, (448, 448): 28.23, (512, 512): 49.86},
            **{(512, 384): 25.69, (384, 512): 22.02, (1024, 1024): 228.41},
        },
        "RIFLEx": {(384, 384): 57.88, (448, 448): 186.76, (512, 512): 251.92},
        "FiTv2-NTK": {(384, 384): 38.43, (448, 448): 179.01, (512, 512): 257.63},
        "FiTv2-YaRN": {(384, 384): 23.23, (448, 448): 71.94, (512, 512): 155.80},
        "LookHere-180": {(512, 512): 66.93},
        "learnable positions, interpolated": {(512, 512): 208.45},
        "LEDiT, fine-tuned": {
            **{(256, 256): 2.38, (384, 384): 9.34, (448, 448): 17.62, (512, 512): 33.25},
            **{(512, 384): 20.29, (384, 512): 18.82, (1024, 1024): 212.97},
        },
        "LEDiT, from scratch": {(384, 384): 15.98, (448, 448): 29.84, (512, 512): 56.02},
        "LEDiT, from scratch, refined": {(384, 384): 12.07, (448, 448): 20.91, (512, 512): 34.29},
    },
    512: {
        "VisionYaRN": {(768, 768): 29.46, (896, 896): 65.58, (1024, 1024): 104.62},
        "LEDiT, fine-tuned": {(768, 768): 21.75, (896, 896): 48.64, (1024, 1024): 91.11},
    },
}
"""Side of the training images -> method -> size -> FID. Where the paper does not say whether a size is height x width
or width x height (512x384, 384x512), it is read as height x width."""


def paper_rows(trained_side: int, sizes: Sequence[Size]) -> list[list[str]]:
    """The lines of a table with these sizes across: the methods that the paper has at one of them or more."""
    return [
        [f"{method} (paper)", *(format_metric("fid", figures.get(size)) for size in sizes)]
        for method, figures in FID.get(trained_side, {}).items()
        if any(size in figures for size in sizes)
    ]
