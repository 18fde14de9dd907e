"""The extrapolation study: methods trained alike, drawn at sizes that they never saw, and measured."""
