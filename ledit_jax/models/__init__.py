"""The networks: LEDiT and MMDiT with their baselines, the autoencoder of latents, and Inception."""

from ledit_jax.models.functional import Network, Params, abstract_params, count_params, init_params, make_apply
from ledit_jax.models.network import LEDiTNetwork, MMDiTNetwork, make_network
from ledit_jax.models.rotary import rotary_tables

__all__ = [
    "LEDiTNetwork",
    "MMDiTNetwork",
    "Network",
    "Params",
    "abstract_params",
    "count_params",
    "init_params",
    "make_apply",
    "make_network",
    "rotary_tables",
]
