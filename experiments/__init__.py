"""Users of the package: the demo, the extrapolation study, the theory tools and the sweep. Nothing imports them."""
