"""What every test shares: the CPU backend, and jaxtyping's shapes checked at run time."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

# Before the package is first imported.
install_import_hook("ledit_jax", "beartype.beartype")
