"""Every setting of an experiment: typed sections, size presets, and the checks between fields.

The dataclasses are the schema. `configs/*.py` turn them into an `ml_collections.ConfigDict` that flags can
override, `Config.from_dict` turns that back, and checkpoints carry the same thing as JSON.
"""

from ledit_jax.config.checks import validate
from ledit_jax.config.experiment import Config, check_image_size
from ledit_jax.config.presets import attention_kinds, model_preset
from ledit_jax.config.sections import (
    AutoencoderConfig,
    BlockOrder,
    DataConfig,
    DiffusionConfig,
    FlowConfig,
    MeshConfig,
    ModelConfig,
    SampleConfig,
    ScanVariant,
    TextConfig,
    TrainConfig,
)
from ledit_jax.config.shift import resolve_shift

__all__ = [
    "AutoencoderConfig",
    "BlockOrder",
    "Config",
    "DataConfig",
    "DiffusionConfig",
    "FlowConfig",
    "MeshConfig",
    "ModelConfig",
    "SampleConfig",
    "ScanVariant",
    "TextConfig",
    "TrainConfig",
    "attention_kinds",
    "check_image_size",
    "model_preset",
    "resolve_shift",
    "validate",
]
