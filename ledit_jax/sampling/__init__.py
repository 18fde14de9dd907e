"""From a checkpoint to images: the pipeline, one denoising step, runs of many samples, and how they are written."""
