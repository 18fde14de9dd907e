"""The methods of the extrapolation study by name: which weights each needs, and what it changes at sampling.

An arm is a set of weights, given by the settings in which its model differs from the study's experiment. Methods
that act at sampling alone (NTK, YaRN, RIFLEx, attention scaling) share one arm.
"""

from dataclasses import dataclass, field
from typing import Any

from ledit_jax.errors import ConfigError, nearest

_PLAIN = {
    "position": "none",
    "block": "dit",
    "block_order": "sa",
    "conv": "none",
    "post_norm": False,
    "causal_from_timestep": 0.0,
}
_LEDIT = _PLAIN | {"block_order": "sa_ca", "conv": "dense"}


@dataclass(frozen=True)
class Arm:
    """ModelConfig fields of a set of weights, and TrainConfig fields where the method is about training."""

    model: dict[str, Any]
    train: dict[str, Any] = field(default_factory=dict)
    from_dit: bool = True
    """Whether the weights of a DiT fit, so that the arm can be fine-tuned from one."""


@dataclass(frozen=True)
class Method:
    """One line of the study's tables."""

    arm: str
    label: str
    sample: dict[str, Any] = field(default_factory=dict)
    """SampleConfig fields in which it differs from the study's experiment."""


ARMS: dict[str, Arm] = {
    "dit": Arm(_PLAIN | {"position": "sincos"}),
    "learnable": Arm(_PLAIN | {"position": "learnable"}),
    "rope": Arm(_PLAIN | {"position": "rope"}),
    "lookhere": Arm(_PLAIN | {"position": "lookhere"}),
    "fit": Arm(_PLAIN | {"position": "rope", "block": "fit"}, from_dit=False),
    "nope": Arm(_PLAIN),
    "nope-causal": Arm(_PLAIN | {"block_order": "sa_ca"}),
    "nope-conv": Arm(_PLAIN | {"conv": "dense"}),
    "ledit": Arm(_LEDIT),
    **{f"ledit-scan-{scan}": Arm(_LEDIT | {"scan": scan}) for scan in ("a", "b", "c", "d", "d_inclusive")},
    **{f"ledit-{order}": Arm(_LEDIT | {"block_order": order}) for order in ("ca_sa", "sa_then_ca", "ca_then_sa")},
    "ledit-depthwise": Arm(_LEDIT | {"conv": "depthwise"}),
    "ledit-undilated": Arm(_LEDIT, {"dilation_probability": 0.0}),
    "ledit-dilation-0.2": Arm(_LEDIT, {"dilation_probability": 0.2}),
    "ledit-dilation-0.5": Arm(_LEDIT, {"dilation_probability": 0.5}),
    "ledit-rates-2-3": Arm(_LEDIT, {"dilation_rates": (2, 3)}),
    "ledit-post-norm": Arm(_LEDIT | {"post_norm": True}),
    "ledit-single": Arm(_LEDIT | {"block_order": "single_ca"}),
    "ledit-threshold": Arm(_LEDIT | {"causal_from_timestep": 500.0}),
    "ledit-refined": Arm(_LEDIT | {"block_order": "single_ca", "post_norm": True}, {"dilation_probability": 0.0}),
}

METHODS: dict[str, Method] = {
    "dit": Method("dit", "DiT, sin/cos"),
    "learnable": Method("learnable", "Learnable table, bicubic"),
    "rope": Method("rope", "RoPE"),
    "rope-unscaled": Method("rope", "RoPE, no attention scaling", {"attention_scaling": "off"}),
    "ntk": Method("rope", "RoPE + VisionNTK", {"rope_method": "ntk"}),
    # YaRN as it is defined has a magnitude of its own, and no attention scaling beside it.
    "yarn": Method("rope", "RoPE + VisionYaRN", {"rope_method": "yarn", "attention_scaling": "off"}),
    "yarn-scaled": Method(
        "rope", "RoPE + VisionYaRN, attention scaling", {"rope_method": "yarn", "attention_scaling": "on"}
    ),
    "riflex": Method("rope", "RoPE + RIFLEx", {"rope_method": "riflex"}),
    "ntk-unscaled": Method(
        "rope", "RoPE + VisionNTK, no attention scaling", {"rope_method": "ntk", "attention_scaling": "off"}
    ),
    "riflex-unscaled": Method(
        "rope", "RoPE + RIFLEx, no attention scaling", {"rope_method": "riflex", "attention_scaling": "off"}
    ),
    "lookhere": Method("lookhere", "LookHere-180"),
    "fit": Method("fit", "FiTv2's block"),
    "fit-ntk": Method("fit", "FiTv2's block + VisionNTK", {"rope_method": "ntk"}),
    "fit-yarn": Method("fit", "FiTv2's block + VisionYaRN", {"rope_method": "yarn", "attention_scaling": "off"}),
    "nope": Method("nope", "NoPE"),
    "nope-causal": Method("nope-causal", "NoPE + causal"),
    "nope-conv": Method("nope-conv", "NoPE + convolution"),
    "ledit": Method("ledit", "LEDiT"),
    "ledit-unscaled": Method("ledit", "LEDiT, no attention scaling", {"attention_scaling": "off"}),
    **{f"ledit-scan-{scan}": Method(f"ledit-scan-{scan}", f"LEDiT, scan {scan}") for scan in ("a", "b", "c", "d")},
    "ledit-scan-d_inclusive": Method("ledit-scan-d_inclusive", "LEDiT, scan d inclusive"),
    "ledit-ca_sa": Method("ledit-ca_sa", "LEDiT, (CA, SA)"),
    "ledit-sa_then_ca": Method("ledit-sa_then_ca", "LEDiT, SA then CA"),
    "ledit-ca_then_sa": Method("ledit-ca_then_sa", "LEDiT, CA then SA"),
    "ledit-depthwise": Method("ledit-depthwise", "LEDiT, depthwise"),
    "ledit-undilated": Method("ledit-undilated", "LEDiT, p = 0"),
    "ledit-dilation-0.2": Method("ledit-dilation-0.2", "LEDiT, p = 0.2"),
    "ledit-dilation-0.5": Method("ledit-dilation-0.5", "LEDiT, p = 0.5"),
    "ledit-rates-2-3": Method("ledit-rates-2-3", "LEDiT, rates 2 and 3"),
    "ledit-post-norm": Method("ledit-post-norm", "LEDiT, post-norm"),
    "ledit-single": Method("ledit-single", "LEDiT, first block causal"),
    "ledit-threshold": Method("ledit-threshold", "LEDiT, causal from t = 500"),
    "ledit-refined": Method("ledit-refined", "LEDiT*, refined"),
}


def find_method(name: str) -> Method:
    """The method of that name. Raises ConfigError, with the nearest one, if there is none."""
    if name not in METHODS:
        raise ConfigError(f"methods: {name!r} is unknown: {nearest(name, METHODS)}")
    return METHODS[name]
