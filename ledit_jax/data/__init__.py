"""Training data: random-access sources of images or latents, and the Grain loader that batches them.

A source gives records by index, the loader turns them into `{"x", "condition"}` batches for one process.
"""

from ledit_jax.data.catalog import make_source
from ledit_jax.data.loader import Loader, make_loader
from ledit_jax.data.source import LabelledSource, Source, UnreadableRecord

__all__ = ["LabelledSource", "Loader", "Source", "UnreadableRecord", "make_loader", "make_source"]
