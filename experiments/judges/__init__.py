"""The judge of generated images: a small classifier of real ones alone, in the place of the Inception network."""
