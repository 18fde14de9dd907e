"""Metrics: FID, sFID, Inception Score, precision and recall of images, as ADM's evaluation defines them."""
