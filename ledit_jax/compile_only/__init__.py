"""Compiling for TPUs that are not there: does it fit, what does it compute, and what does it send around."""
