"""Judging samples: the Frechet distance, and classifiers that are trained apart from the model they judge."""
