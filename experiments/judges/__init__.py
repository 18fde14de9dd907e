"""Judges of generated images: small classifiers trained on real images alone, in the place of the Inception network."""
