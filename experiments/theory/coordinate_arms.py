"""The networks that learn the coordinate task: where each gets its positions from, and what changes beyond its grid."""

from dataclasses import dataclass, field
from typing import Any

from ledit_jax.config import ModelConfig, SampleConfig
from ledit_jax.errors import ConfigError, nearest
from ledit_jax.models import LEDiTNetwork
from ledit_jax.models.positions import Grid, make_position

CHANNELS = 4
"""Of the noise that the networks are shown."""
_SIZE = {"depth": 4, "num_heads": 4, "patch_size": 1, "num_classes": 1, "scan_layers": True}
_PLAIN = {"position": "none", "block_order": "sa", "conv": "none"}
_ROPE_LABELS = {"plain": "", "ntk": " + NTK", "yarn": " + YaRN", "riflex": " + RIFLEx"}


@dataclass(frozen=True)
class Arm:
    """A network of the task."""

    label: str
    model: dict[str, Any]
    """ModelConfig fields."""
    rope_methods: tuple[str, ...] = field(default=("plain",))
    """What is done beyond the trained grid, with the same weights."""

    def network(self, grid: Grid, width: int) -> LEDiTNetwork:
        """As it is trained on a grid: noise in, two coordinates for each token out."""
        config = ModelConfig(**(_SIZE | {"width": width} | self.model))
        return LEDiTNetwork(config, CHANNELS, 2, grid, make_position(config, grid))

    def beyond(self, grid: Grid, width: int, rope_method: str, attention_scaling: str = "auto") -> LEDiTNetwork:
        """The same as other grids are read with."""
        options = SampleConfig(rope_method=rope_method, attention_scaling=attention_scaling)
        return self.network(grid, width).for_sampling(options)

    def label_of(self, rope_method: str) -> str:
        """As a line of a table is called."""
        return self.label + _ROPE_LABELS[rope_method]


def _ledit_arms() -> dict[str, Arm]:
    scans = {
        "inclusive": ("scan d inclusive", {"scan": "d_inclusive", "block_order": "sa_ca"}),
        "d": ("scan d", {"scan": "d", "block_order": "sa_ca"}),
        "single": ("one causal layer", {"scan": "d", "block_order": "single_ca"}),
    }
    inits = {"xavier": "Xavier", "noise": "identity and noise", "identity": "identity"}
    arms = {}
    for scan, (scan_label, model) in scans.items():
        for norm in (True, False):
            for init, init_label in inits.items():
                conv_init = "identity_noise" if init == "noise" else init
                fields = {"position": "none", "conv": "dense", "conv_init": conv_init, "post_norm": norm} | model
                name = f"{scan}-{init}" + ("-norm" if norm else "")
                arms[name] = Arm(f"LEDiT, {scan_label}, {init_label}" + (", norm" if norm else ""), fields)
    return arms


ARMS: dict[str, Arm] = {
    **_ledit_arms(),
    "conv-xavier-norm": Arm(
        "Convolution alone, Xavier, norm", _PLAIN | {"conv": "dense", "conv_init": "xavier", "post_norm": True}
    ),
    "conv-xavier": Arm("Convolution alone, Xavier", _PLAIN | {"conv": "dense", "conv_init": "xavier"}),
    "causal": Arm("Causal attention alone, scan d", _PLAIN | {"block_order": "sa_ca"}),
    "causal-inclusive": Arm(
        "Causal attention alone, scan d inclusive", _PLAIN | {"block_order": "sa_ca", "scan": "d_inclusive"}
    ),
    "nope": Arm("NoPE", _PLAIN),
    "rope": Arm("RoPE", _PLAIN | {"position": "rope"}, ("plain", "ntk", "yarn", "riflex")),
    "rpe2d": Arm("RPE-2D", _PLAIN | {"position": "rpe2d"}),
    "learnable": Arm("Learnable table, stretched", _PLAIN | {"position": "learnable"}),
    "sincos": Arm("Sin/cos", _PLAIN | {"position": "sincos"}),
    "lookhere": Arm("LookHere-180", _PLAIN | {"position": "lookhere"}),
}
"""The convolution's initialisation, the norm after it and the scan in every combination, and the rivals."""


def find_arm(name: str) -> Arm:
    """The network of that name. Raises ConfigError, with the nearest one, if there is none."""
    if name not in ARMS:
        raise ConfigError(f"arms: {name!r} is unknown: {nearest(name, ARMS)}")
    return ARMS[name]
