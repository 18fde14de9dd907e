"""Whatever a user calls a checkpoint, as a folder of ours: a model of the hub, DiT's own files, PyTorch's folders.

What is not ours is fetched, converted once and kept in a cache by its commit; then no network is needed.
"""

from ledit_jax.hub.export import save_pretrained
from ledit_jax.hub.resolve import resolve

__all__ = ["resolve", "save_pretrained"]
