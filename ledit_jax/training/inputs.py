"""What has to hold between a run's data and the autoencoder its config names."""

from ledit_jax.config import Config
from ledit_jax.data.latents import read_metadata
from ledit_jax.errors import ConfigError
from ledit_jax.weights import vae_description


def check_latents_vae(config: Config) -> None:
    """Raises ConfigError for latents that another autoencoder made than `autoencoder.checkpoint`.

    Without a checkpoint in the config there is nothing to compare; scale, channels and sizes are checked as the
    latents are opened.
    """
    if config.data.source != "latents" or not config.autoencoder.checkpoint:
        return
    metadata = read_metadata(config.data.path)
    _, vae_id = vae_description(config.autoencoder.checkpoint)
    if vae_id != metadata.vae_id:
        raise ConfigError(
            f"autoencoder.checkpoint={config.autoencoder.checkpoint!r} ({vae_id}) is not what made the latents in "
            f"data.path={config.data.path!r}: that was {metadata.vae!r} ({metadata.vae_id or 'no fingerprint'})"
        )
