"""Checkpoints that a power cut cannot hollow out: all files are on the disk before the folder takes its name.

The store of arrays flushes its own files. Orbax's other ones, JSON and metadata, are small, and would follow within
half a minute; but the name may be there before them, and a checkpoint that seems complete then holds empty files.
"""

import dataclasses

import orbax.checkpoint as ocp
from etils import epath

from ledit_jax.files import as_place, flush_tree


class _DurableJson(ocp.JsonCheckpointHandler):
    def finalize(self, directory: epath.Path) -> None:
        """Called by Orbax when every item is written, and before any has its name."""
        super().finalize(directory)
        flush_tree(as_place(directory).parent)


@ocp.args.register_with_handler(_DurableJson, for_save=True)
@dataclasses.dataclass
class DurableSave(ocp.args.JsonSave):
    """An item of JSON, with which the whole checkpoint is flushed."""


@ocp.args.register_with_handler(_DurableJson, for_restore=True)
@dataclasses.dataclass
class _DurableRestore(ocp.args.JsonRestore):
    """Orbax wants both."""
