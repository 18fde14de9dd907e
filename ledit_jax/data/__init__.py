"""Training data: random-access sources of pictures or latents, and the Grain loader that batches them.

A source gives records by index, the loader turns them into `{"x", "label"}` batches for one process.
"""

from ledit_jax.data.loader import Loader, make_loader
from ledit_jax.data.records import Source, UnreadableRecord
from ledit_jax.data.sources import make_source

__all__ = ["Loader", "Source", "UnreadableRecord", "make_loader", "make_source"]
