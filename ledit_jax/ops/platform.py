"""What the program at hand is compiled for."""

import jax


def current_platform() -> str:
    """cpu, gpu or tpu: of the mesh in context (`jax.set_mesh`), else jax's default one.

    A mesh may be of devices that are not there, to compile for them.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None or not hasattr(device, "platform"):  # jax before 0.8 knows only the kind of an abstract device
        return jax.default_backend()
    return device.platform


def current_device_kind() -> str:
    """What the same device is, as jax names it: "TPU v4", for example."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.devices()[0].device_kind if device is None else device.device_kind
