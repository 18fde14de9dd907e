"""The figures of the paper's tables (arXiv 2503.04344), to stand beside ours: guidance 1.5, of text to image 2.

FID falls as the number of samples grows, so that a figure says little beside one of another number: LEDiT at 512x512
has 33.25 of 50,000 and 35.86 of 10,000.
"""

from collections.abc import Sequence

from experiments.sizes import Size, size_name
from ledit_jax.evaluation.suite import Metrics, format_metric

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


TEXT: dict[int, dict[Size, dict[str, Metrics]]] = {
    256: {
        (256, 256): {
            "MMDiT, sin/cos": Metrics(6.32, 11.77, 30.01, 0.65, 0.49),
            "MMDiT, RoPE": Metrics(5.39, 11.68, 32.32, 0.67, 0.50),
            "LEMMDiT": Metrics(6.35, 11.61, 31.54, 0.65, 0.48),
        },
        (512, 512): {
            "MMDiT, sin/cos": Metrics(160.72, 156.38, 9.09, 0.07, 0.09, 22.94),
            "MMDiT, RoPE + VisionNTK": Metrics(78.56, 112.85, 19.41, 0.19, 0.30, 24.91),
            "MMDiT, RoPE + VisionYaRN": Metrics(163.88, 93.39, 10.35, 0.11, 0.30, 23.37),
            "MMDiT, RoPE + RIFLEx": Metrics(34.58, 52.58, 21.75, 0.40, 0.36, 27.14),
            "LEMMDiT": Metrics(29.89, 39.98, 24.11, 0.44, 0.31, 27.82),
        },
    },
}
"""Text to image, Tables 8 and 4: side of the training images -> size -> method -> figures of 40,504 samples, for
captions of COCO's val2014, guidance 2."""


def text_rows(trained_side: int, sizes: Sequence[Size]) -> dict[str, Metrics]:
    """The paper's figures of text to image at those of the sizes that it has, by what to call them."""
    papers = TEXT.get(trained_side, {})
    return {
        f"{method} (paper), {size_name(size)}": metrics
        for size in sizes
        for method, metrics in papers.get(size, {}).items()
    }
