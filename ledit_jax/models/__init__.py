"""The networks: LEDiT with its parts, and the autoencoder that latents come from."""
