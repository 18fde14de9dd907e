"""What the paper proves and probes, measured on trained models."""
