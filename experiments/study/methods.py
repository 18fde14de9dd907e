"""The methods of the extrapolation study by name: which weights each needs, and what it changes at sampling.

An arm is a set of weights, given by the settings in which its model differs from the study's experiment. Methods
that act at sampling alone (NTK, YaRN, RIFLEx, attention scaling, time shift) share one arm. Any method may be drawn
by a sampler of its own with so many network calls: "ledit-flow@ab2-16".
"""

import dataclasses
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


# Fed 1000 t, as a diffusion's networks are: the processes then differ in nothing else, and either's DiT starts both.
_FLOW = {"time_scale": 1000.0}
_BY_FLOW = {"sampler": "ab2"}

BASE, FLOW_BASE = "base", "base-flow"
"""The DiTs that arms are fine-tuned from, if there are any: by the experiment's process, and by flow."""


@dataclass(frozen=True)
class Arm:
    """ModelConfig fields of a set of weights, and TrainConfig fields where the method is about training."""

    model: dict[str, Any]
    train: dict[str, Any] = field(default_factory=dict)
    from_dit: bool = True
    """Whether the weights of a DiT fit, so that the arm can be fine-tuned from one."""
    flow: dict[str, Any] | None = None
    """FlowConfig fields of weights that learn a flow; None learns the experiment's process."""
    sample: dict[str, Any] = field(default_factory=dict)
    """SampleConfig fields where the experiment's sampler does not fit the process."""
    base: str = BASE


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
    "rpe2d": Arm(_PLAIN | {"position": "rpe2d"}),
    "lookhere": Arm(_PLAIN | {"position": "lookhere"}),
    "fit": Arm(_PLAIN | {"position": "rope", "block": "fit"}, from_dit=False),
    "nope": Arm(_PLAIN),
    "nope-causal": Arm(_PLAIN | {"block_order": "sa_ca"}),
    "nope-conv": Arm(_PLAIN | {"conv": "dense"}),
    "ledit": Arm(_LEDIT),
    **{f"ledit-scan-{scan}": Arm(_LEDIT | {"scan": scan}) for scan in ("a", "b", "c", "d", "d_inclusive")},
    **{f"ledit-{order}": Arm(_LEDIT | {"block_order": order}) for order in ("ca_sa", "sa_then_ca", "ca_then_sa")},
    "ledit-xavier": Arm(_LEDIT | {"conv_init": "xavier"}),
    "ledit-noise": Arm(_LEDIT | {"conv_init": "identity_noise"}),
    "ledit-xavier-norm": Arm(_LEDIT | {"conv_init": "xavier", "post_norm": True, "scan": "d_inclusive"}),
    "ledit-depthwise": Arm(_LEDIT | {"conv": "depthwise"}),
    "ledit-undilated": Arm(_LEDIT, {"dilation_probability": 0.0}),
    "ledit-dilation-0.2": Arm(_LEDIT, {"dilation_probability": 0.2}),
    "ledit-dilation-0.5": Arm(_LEDIT, {"dilation_probability": 0.5}),
    "ledit-rates-2-3": Arm(_LEDIT, {"dilation_rates": (2, 3)}),
    "ledit-post-norm": Arm(_LEDIT | {"post_norm": True}),
    "ledit-single": Arm(_LEDIT | {"block_order": "single_ca"}),
    "ledit-threshold": Arm(_LEDIT | {"causal_from_timestep": 500.0}),
    "ledit-refined": Arm(_LEDIT | {"block_order": "single_ca", "post_norm": True}, {"dilation_probability": 0.0}),
    "ledit-flow": Arm(_LEDIT, flow=_FLOW, sample=_BY_FLOW, base=FLOW_BASE),
    "ledit-flow-dit": Arm(_LEDIT, flow=_FLOW, sample=_BY_FLOW),
    "ledit-meanflow": Arm(
        _LEDIT | {"span_embed": True},
        # The share and the times of MeanFlow's own ImageNet networks (arXiv 2505.13447, table 4).
        flow=_FLOW | {"mean_flow_share": 0.25, "times": "logit_normal", "times_mean": -0.4},
        sample={"sampler": "meanflow", "num_steps": 2},
        base=FLOW_BASE,
    ),
}

BASES: dict[str, Arm] = {
    BASE: ARMS["dit"],
    FLOW_BASE: dataclasses.replace(ARMS["dit"], flow=_FLOW, sample=_BY_FLOW, base=FLOW_BASE),
}

METHODS: dict[str, Method] = {
    "dit": Method("dit", "DiT, sin/cos"),
    "learnable": Method("learnable", "Learnable table, bicubic"),
    "rope": Method("rope", "RoPE"),
    "ntk": Method("rope", "RoPE + VisionNTK", {"rope_method": "ntk"}),
    # YaRN as it is defined has a magnitude of its own, and no attention scaling beside it.
    "yarn": Method("rope", "RoPE + VisionYaRN", {"rope_method": "yarn", "attention_scaling": "off"}),
    "riflex": Method("rope", "RoPE + RIFLEx", {"rope_method": "riflex"}),
    "dype-ntk": Method("rope", "RoPE + DyPE, NTK", {"rope_method": "dype_ntk"}),
    "dype-yarn": Method("rope", "RoPE + DyPE, YaRN", {"rope_method": "dype_yarn", "attention_scaling": "off"}),
    "rpe2d": Method("rpe2d", "RPE-2D"),
    "lookhere": Method("lookhere", "LookHere-180"),
    "fit": Method("fit", "FiTv2's block"),
    "fit-ntk": Method("fit", "FiTv2's block + VisionNTK", {"rope_method": "ntk"}),
    "fit-yarn": Method("fit", "FiTv2's block + VisionYaRN", {"rope_method": "yarn", "attention_scaling": "off"}),
    "nope": Method("nope", "NoPE"),
    "nope-causal": Method("nope-causal", "NoPE + causal"),
    "nope-conv": Method("nope-conv", "NoPE + convolution"),
    "ledit": Method("ledit", "LEDiT"),
    **{f"ledit-scan-{scan}": Method(f"ledit-scan-{scan}", f"LEDiT, scan {scan}") for scan in ("a", "b", "c", "d")},
    "ledit-scan-d_inclusive": Method("ledit-scan-d_inclusive", "LEDiT, inclusive scan"),
    "ledit-ca_sa": Method("ledit-ca_sa", "LEDiT, (CA, SA)"),
    "ledit-sa_then_ca": Method("ledit-sa_then_ca", "LEDiT, SA then CA"),
    "ledit-ca_then_sa": Method("ledit-ca_then_sa", "LEDiT, CA then SA"),
    "ledit-xavier": Method("ledit-xavier", "LEDiT, convolution from Xavier's noise"),
    "ledit-noise": Method("ledit-noise", "LEDiT, convolution from the identity and noise"),
    "ledit-xavier-norm": Method("ledit-xavier-norm", "LEDiT, inclusive, Xavier, norm"),
    "ledit-depthwise": Method("ledit-depthwise", "LEDiT, depthwise"),
    "ledit-undilated": Method("ledit-undilated", "LEDiT, p = 0"),
    "ledit-dilation-0.2": Method("ledit-dilation-0.2", "LEDiT, p = 0.2"),
    "ledit-dilation-0.5": Method("ledit-dilation-0.5", "LEDiT, p = 0.5"),
    "ledit-rates-2-3": Method("ledit-rates-2-3", "LEDiT, rates 2 and 3"),
    "ledit-post-norm": Method("ledit-post-norm", "LEDiT, post-norm"),
    "ledit-single": Method("ledit-single", "LEDiT, first block causal"),
    "ledit-threshold": Method("ledit-threshold", "LEDiT, causal from t = 500"),
    "ledit-refined": Method("ledit-refined", "LEDiT*, refined"),
    "ledit-flow": Method("ledit-flow", "LEDiT by flow"),
    "ledit-flow-dit": Method("ledit-flow-dit", "LEDiT by flow, from the diffusion's DiT"),
    "ledit-meanflow": Method("ledit-meanflow", "LEDiT by MeanFlow"),
}


_ENDINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "-unscaled": (", no attention scaling", {"attention_scaling": "off"}),
    "-scaled": (", attention scaling", {"attention_scaling": "on"}),
    "-shift": (" + time shift", {"time_shift": "auto"}),
}
"""What a method's name may end in: what its label then ends in, and the SampleConfig fields that change."""


def find_method(name: str) -> Method:
    """The method of that name, which may go on with -unscaled, -scaled or -shift, and then with @SAMPLER-CALLS.

    Raises ConfigError, with the nearest one, if there is none; whether the sampler fits is for the config to say.
    """
    plain, sampler, calls = split_name(name)
    method = _varied(plain)
    if sampler is None:
        return method
    label = f"{method.label}, {sampler}, {calls} calls"
    return dataclasses.replace(method, label=label, sample=method.sample | {"sampler": sampler, "num_steps": calls})


def _varied(name: str) -> Method:
    for ending, (words, sample) in _ENDINGS.items():
        if name.endswith(ending) and name.removesuffix(ending) in METHODS:
            method = METHODS[name.removesuffix(ending)]
            return dataclasses.replace(method, label=method.label + words, sample=method.sample | sample)
    if name not in METHODS:
        raise ConfigError(f"methods: {name!r} is unknown: {nearest(name, METHODS)}")
    return METHODS[name]


def split_name(name: str) -> tuple[str, str | None, int | None]:
    """ "ledit@ddim-8" -> ("ledit", "ddim", 8); without a sampler the others are None. Raises ConfigError."""
    plain, at, drawn = name.partition("@")
    if not at:
        return plain, None, None
    sampler, _, calls = drawn.partition("-")
    if not (sampler and calls.isdecimal()):
        raise ConfigError(f"methods: {name!r} must end in a sampler and a number of calls, as in {plain}@ddim-8")
    return plain, sampler, int(calls)
