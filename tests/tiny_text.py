"""A tiny CLIP text encoder of random weights, as a checkpoint of ours; no third-party library is imported for it."""

from pathlib import Path

from flax import nnx
from tokenizers.pre_tokenizers import ByteLevel

from ledit_jax.models.clip_text import CLIPText, CLIPTextConfig
from ledit_jax.models.tokenizer import END, START, Vocabulary
from ledit_jax.weights import export_text

LENGTH, WIDTH = 12, 16


def write_text_encoder(folder: Path, seed: int = 0) -> str:
    """Of every byte as a token; prompts have up to ten letters."""
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    config = CLIPTextConfig(vocab_size=len(tokens), length=LENGTH, depth=1, width=WIDTH, num_heads=2, mlp_width=16)
    params = nnx.to_pure_dict(nnx.state(CLIPText(config, nnx.Rngs(seed)), nnx.Param))
    export_text(folder, params, config, Vocabulary({token: i for i, token in enumerate(tokens)}, []))
    return str(folder)
