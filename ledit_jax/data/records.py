"""What a source of training data is, and the one way it says that a record cannot be read."""

from typing import Any, Protocol, runtime_checkable


class UnreadableRecord(Exception):
    """A record that exists and cannot be read. The message names it and says why; the loader skips it."""


@runtime_checkable
class Source(Protocol):
    """Random access to records: `len(source)`, `source[i]` for 0 <= i < len(source), picklable.

    A picture record is `{"image": uint8 [h, w, C], "label": int}` with C of the source's `channels`; sizes may
    differ between records. A latent record is `{"mean", "logvar", "mean_flip", "logvar_flip": float32 [H, W, C],
    "label": int}` (see `ledit_jax.data.latents`). Labels are 0 .. num_classes - 1.
    `source[i]` raises IndexError outside the range and UnreadableRecord for a record that cannot be read.
    """

    @property
    def num_classes(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...
