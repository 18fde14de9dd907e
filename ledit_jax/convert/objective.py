"""What a network with DiT's names and shapes was trained for, which no tensor tells: DiT's diffusion, or a flow.

SiT's files have exactly DiT's names and shapes; REPA's predict C channels and bring projector heads.
"""

import dataclasses
import logging
import re
from pathlib import Path

from ledit_jax.config import Config, DiffusionConfig, FlowConfig, SampleConfig
from ledit_jax.convert.files import StoredTensors
from ledit_jax.errors import CheckpointError, ConfigError

_log = logging.getLogger(__name__)

_FLOWS = {"SiT": "sit", "REPA": "noise_time"}
"""`flow.convention` of the families that are trained as flows."""
_PROJECTORS = "projectors."
_DOUBT = (
    "a SiT has the same names and shapes, and predicts a velocity: if this is one, give model=SiT-... or objective=flow"
)
# How their authors draw: SiT's SDE; REPA guides all channels, and not in the last part of the way to noise.
_SAMPLING = {
    "sit": SampleConfig(sampler="sde"),
    "noise_time": SampleConfig(sampler="sde", cfg_scale=1.8, cfg_channels="all", cfg_interval=(0.0, 0.7)),
}


def without_projectors(stored: StoredTensors) -> StoredTensors:
    """REPA's heads towards other networks' features, which sampling does not use, are left out and said so."""
    heads = [name for name in stored.shapes if name.startswith(_PROJECTORS)]
    if heads:
        _log.info("dropped %d tensors of REPA's projector heads, %s and so on", len(heads), heads[0])
    return stored.without(heads)


def read_objective(
    stored: StoredTensors, config: Config, output: int, model: str | None, objective: str | None
) -> Config:
    """`config` with what the network was trained for.

    stored: with REPA's heads, if there are any. output: features of the last layer for each token. model, objective:
    what the user says it is. Logs what was taken from a name. Raises ConfigError where they contradict each other, or
    the file's name.
    """
    family = (model or "").partition("-")[0]
    said = objective or (("flow" if family in _FLOWS else "noise") if model else None)
    hint = _hint(stored)
    if model and hint and family not in (*_FLOWS, "LEDiT", "LEDiT*") and objective is None:
        raise ConfigError(
            f"input={stored.path} is a {hint} by its name, and model={model} a diffusion: give model={hint}-..., or "
            "objective=noise if the name is wrong"
        )
    channels = config.model.patch_size**2 * config.in_channels
    convention = {channels: "noise_time", 2 * channels: "sit"}.get(output)
    if _FLOWS.get(family, convention) != convention:
        other = next((name for name, one in _FLOWS.items() if one == convention), "DiT")
        raise ConfigError(f"model={model} does not fit the {output} outputs of {stored.path}: it may be a {other}")
    if said is None and hint is None and convention == "noise_time":
        raise CheckpointError(
            f"{stored.path} predicts {config.in_channels} channels, and DiT's diffusion needs twice as many: give "
            "objective=flow if it learned velocities, as REPA's networks do"
        )
    if (said or ("flow" if hint else "noise")) == "noise" or convention is None:
        if said is None and not stored.settings:  # diffusers' config.json names the class
            _log.info(_DOUBT)
        return config
    if said is None:
        _log.info("its name says %s: read as a flow; with objective=noise it is read as a DiT", hint)
    _log.info(
        "a flow (flow.convention=%s)%s", convention, ": its last layer changes sign" if convention == "sit" else ""
    )
    return dataclasses.replace(
        config,
        diffusion=DiffusionConfig(objective="flow"),
        flow=FlowConfig(convention=convention),
        sample=_SAMPLING[convention],
    )


def _hint(stored: StoredTensors) -> str | None:
    """The flow family that names tell of: of the file, of its folder, of diffusers' class, of tensors."""
    if any(name.startswith(_PROJECTORS) for name in stored.shapes):
        return "REPA"
    path = Path(stored.path).absolute()
    names = (path.name, path.parent.name, str(stored.settings.get("_class_name", "")))
    for family in ("REPA", "SiT"):
        if any(re.search(rf"(?<![a-z]){family.lower()}(?![a-z])", _spaced(name)) for name in names):
            return family
    return None


def _spaced(name: str) -> str:
    """SiTTransformer2DModel -> sit transformer2 d model."""
    return re.sub(r"(?<=[a-zT])(?=[A-Z][a-z])", " ", name).lower()
