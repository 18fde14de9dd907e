"""Models by name, and what the name of a block order stands for."""

import dataclasses
import re
from typing import Any

from ledit_jax.config.sections import BlockOrder, ModelConfig
from ledit_jax.errors import ConfigError, nearest

# Depth, width and heads of the DiT paper (arXiv 2212.09748, table 1).
_SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}
_PLAIN = {"block_order": "sa", "conv": "none"}
_FAMILIES: dict[str, dict[str, Any]] = {
    "LEDiT": {},
    # The refined LEDiT of the paper's third version (appendix F). It also trains without multi-dilation, which is a
    # setting of training (configs/imagenet256_refined.py).
    "LEDiT*": {"block_order": "single_ca", "post_norm": True},
    "DiT": {"position": "sincos"} | _PLAIN,
    # The same network; what it is trained for is a setting of the process (configs/imagenet256_flow.py).
    "SiT": {"position": "sincos"} | _PLAIN,
    "REPA": {"position": "sincos"} | _PLAIN,
    "NoPE": {"position": "none"} | _PLAIN,
    "Learnable": {"position": "learnable"} | _PLAIN,
    "RoPE": {"position": "rope"} | _PLAIN,
    "RPE2D": {"position": "rpe2d"} | _PLAIN,
    "LookHere": {"position": "lookhere"} | _PLAIN,
    # FiTv2's block and rotary positions in DiT's sizes, trained as a DiT. FiTv2-XL itself is 36 blocks deep
    # (671,064,224 parameters) and learns a velocity.
    "FiTBlock": {"position": "rope", "block": "fit"} | _PLAIN,
}
# Text to image. 24 is the paper's and REPA's: as many heads as blocks, of 32 each.
_TEXT_SIZES = {"S": (12, 384, 12), "B": (12, 768, 24), "24": (24, 768, 24)}
_TEXT_FAMILIES: dict[str, dict[str, Any]] = {
    "LEMMDiT": {},
    "MMDiT": {"position": "sincos"} | _PLAIN,
    "RoPE-MMDiT": {"position": "rope"} | _PLAIN,
    "NoPE-MMDiT": {"position": "none"} | _PLAIN,
    "Learnable-MMDiT": {"position": "learnable"} | _PLAIN,
}


def model_preset(name: str, **overrides: Any) -> ModelConfig:
    """ModelConfig for a name such as "LEDiT-XL/2", "LEDiT*-XL/2", "DiT-B/4", "NoPE-S/8" or, of text, "LEMMDiT-24/2".

    Raises ConfigError for any other name. `overrides` are ModelConfig fields. What is told text also needs a
    `TextConfig` whose encoder is not none.
    """
    match = re.fullmatch(r"((?:\w+-)?\w+\*?)-(\w+)/([248])", name) if isinstance(name, str) else None
    is_text = match and match[1] in _TEXT_FAMILIES
    families, sizes = (_TEXT_FAMILIES, _TEXT_SIZES) if is_text else (_FAMILIES, _SIZES)
    if not match or match[1] not in families or match[2] not in sizes:
        raise ConfigError(
            f"model name {name!r} is unknown: use FAMILY-SIZE/PATCH with family {', '.join(_FAMILIES)}, "
            f"size {', '.join(_SIZES)} and patch 2, 4 or 8, for example LEDiT-XL/2; or, told text, with family "
            f"{', '.join(_TEXT_FAMILIES)} and size {', '.join(_TEXT_SIZES)}"
        )
    known = [field.name for field in dataclasses.fields(ModelConfig)]
    for field in overrides:
        if field not in known:
            raise ConfigError(f"model.{field} is unknown: {nearest(field, known)}")
    depth, width, num_heads = sizes[match[2]]
    fields: dict[str, Any] = dict(depth=depth, width=width, num_heads=num_heads, patch_size=int(match[3]))
    fields["network"] = "mmdit" if is_text else "ledit"
    return ModelConfig(**(fields | families[match[1]] | overrides))


def attention_kinds(order: BlockOrder, depth: int) -> tuple[tuple[tuple[str, ...], int], ...]:
    """Segments (repeating unit, repeats) of a block order: ((("sa", "ca"), 14),) for "sa_ca" and depth 28.

    "single_ca" makes the first block causal: the paper's v3 says one causal layer and not which, and the first
    is where position has to enter.
    """
    half = depth // 2
    segments = {
        "sa_ca": ((("sa", "ca"), half),),
        "ca_sa": ((("ca", "sa"), half),),
        "sa_then_ca": ((("sa",), half), (("ca",), half)),
        "ca_then_sa": ((("ca",), half), (("sa",), half)),
        "sa": ((("sa",), depth),),
        "ca": ((("ca",), depth),),
        "single_ca": ((("ca",), 1), (("sa",), depth - 1)),
    }[order]
    return tuple((unit, repeats) for unit, repeats in segments if repeats)
