"""The FID figures of the paper's tables (arXiv 2503.04344), to stand beside ours: guidance 1.5.

FID falls as the number of samples grows, so that a figure says little beside one of another number: LEDiT at 512x512
has 33.25 of 50,000 and 35.86 of 10,000.
"""

from collections.abc import Sequence

from experiments.sizes import Size
from ledit_jax.evaluation.suite import format_metric

FID: dict[int, dict[int, dict[str, dict[Size, float]]]] = {
    256: {
        50_000: {
            "DiT, sin/cos": {(256, 256): 2.27, (384, 384): 87.03, (448, 448): 168.23, (512, 512): 213.77},
            "DiT, RoPE": {(256, 256): 2.33},
            "VisionNTK": {(384, 384): 71.23, (448, 448): 184.29, (512, 512): 246.56},
            "VisionYaRN": {
                **{(384, 384): 13.51, (448, 448): 28.23, (512, 512): 49.86},
                **{(512, 384): 25.69, (384, 512): 22.02},
            },
            "RIFLEx": {(384, 384): 57.88, (448, 448): 186.76, (512, 512): 251.92},
            "FiTv2-NTK": {(384, 384): 38.43, (448, 448): 179.01, (512, 512): 257.63},
            "FiTv2-YaRN": {(384, 384): 23.23, (448, 448): 71.94, (512, 512): 155.80},
            "LEDiT, fine-tuned": {
                **{(256, 256): 2.38, (384, 384): 9.34, (448, 448): 17.62, (512, 512): 33.25},
                **{(512, 384): 20.29, (384, 512): 18.82},
            },
            "LEDiT, from scratch": {(384, 384): 15.98, (448, 448): 29.84, (512, 512): 56.02},
            "LEDiT*, from scratch": {(384, 384): 12.07, (448, 448): 20.91, (512, 512): 34.29},
        },
        10_000: {
            "LookHere-180": {(512, 512): 66.93},
            "LookHere-180, from scratch": {(512, 512): 41.97},
            "learnable positions, interpolated": {(512, 512): 208.45},
            "VisionYaRN": {(1024, 1024): 228.41},
            "LEDiT, fine-tuned": {(512, 512): 35.86, (1024, 1024): 212.97},
            "LEDiT, from scratch": {(512, 512): 59.32},
            "LEDiT*, from scratch": {(512, 512): 36.79},
        },
    },
    512: {
        10_000: {
            "VisionYaRN": {(768, 768): 29.46, (896, 896): 65.58, (1024, 1024): 104.62},
            "LEDiT, fine-tuned": {(768, 768): 21.75, (896, 896): 48.64, (1024, 1024): 91.11},
        },
    },
}
"""Side of the training images -> number of samples -> method -> size -> FID. Where the paper does not say whether a
size is height x width or width x height (512x384, 384x512), it is read as height x width."""


def paper_rows(trained_side: int, sizes: Sequence[Size], num_samples: int) -> list[list[str]]:
    """The lines of a table with these sizes across: the methods that the paper has at one of them or more.

    Each says its number of samples; those of as many as `num_samples` come first.
    """
    papers = FID.get(trained_side, {})
    return [
        [f"{method} (paper), {count:,}", *(format_metric("fid", figures.get(size)) for size in sizes)]
        for count in sorted(papers, key=lambda count: (count != num_samples, -count))
        for method, figures in papers[count].items()
        if any(size in figures for size in sizes)
    ]
