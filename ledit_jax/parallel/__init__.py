"""Several devices and processes as one: how they start, the mesh, and how arrays are split over it."""
