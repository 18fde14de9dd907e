"""transformers' CLIP, tiny and random, with a tokenizer of a few merges, as the files that people have.

transformers takes seconds to import: modules that need it import this one.
"""

import json
import os
import warnings
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel

os.environ["HF_HUB_OFFLINE"] = "1"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers

LETTERS = sorted(ByteLevel.alphabet())
MERGES = ["a t</w>", "c at</w>", "r e", "re d</w>", "i s", "Ã ©</w>", "! !", "o f</w>"]
TOKENS = [
    *LETTERS,
    *(f"{letter}</w>" for letter in LETTERS),
    *(m.replace(" ", "") for m in MERGES),
    "<|startoftext|>",
    "<|endoftext|>",
]
VOCAB = {token: i for i, token in enumerate(TOKENS)}
START, END = len(TOKENS) - 2, len(TOKENS) - 1
STRANGE = [
    "",
    " \t\n",
    "a cat",
    "A Red  CAT\n\t sat of",
    "Café Éé e\u0301 naïve",
    "🙂 emoji 👩‍👩‍👧",
    "漢字 かな",
    "\x00\x01\x1f",
    "x" * 500,
    "it's don't we'LL I'm",
    "123 4.5%",
    "<|endoftext|>",
    "a<|endoftext|>b <|startoftext|> hi <|ENDOFTEXT|>",
    "ﬁ ﬃ Ǆ İ ß ẞ",
    "\u00a0nbsp\u2003em\u200bzw\ufeffbom",
    "!!! ! !!cat",
    "a" * 76 + " b",
    "a cat " * 40,
    "\ud7ff\ue000\U0010ffff",
    "١٢٣ ½ ²_under-score",
]
TEXT = dict(
    vocab_size=len(TOKENS),
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=77,
    bos_token_id=START,
    eos_token_id=END,
    projection_dim=24,
)
VISION = dict(
    hidden_size=40,
    intermediate_size=56,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=24,
    patch_size=8,
    projection_dim=24,
)


def write_tokenizer(folder: Path, **config) -> Path:
    """vocab.json and merges.txt, with what `config` says in tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(VOCAB))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77, **config}))
    return folder


def their_ids(folder: Path, prompts: list[str]) -> list[list[int]]:
    """As diffusers' pipelines ask for them."""
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    return tokenizer(prompts, padding="max_length", max_length=77, truncation=True)["input_ids"]


def text_model(activation: str = "quick_gelu", **settings) -> transformers.CLIPTextModel:
    """With every parameter random, norms and biases too."""
    config = transformers.CLIPTextConfig(**(TEXT | settings), hidden_act=activation)
    return _randomise(transformers.CLIPTextModel(config))


def clip_model(activation: str = "quick_gelu") -> transformers.CLIPModel:
    config = transformers.CLIPConfig(
        text_config=TEXT | {"hidden_act": activation},
        vision_config=VISION | {"hidden_act": activation},
        projection_dim=24,
    )
    return _randomise(transformers.CLIPModel(config))


def _randomise(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            is_scale = "norm" in name and name.endswith("weight")
            p.copy_(
                0.3 * noise + is_scale if p.ndim < 2 else noise * (2 if "embedding" in name else p.shape[1] ** -0.5)
            )
    return model.eval()
