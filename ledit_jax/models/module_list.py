"""Modules in a row as an attribute of another one."""

from flax import nnx

ModuleList = getattr(nnx, "List", list)
"""Flax before 0.12 takes a plain list, and newer ones refuse it."""
