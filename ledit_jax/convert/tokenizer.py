"""A CLIP tokenizer's files, as transformers writes them: tokenizer.json, or vocab.json with merges.txt."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ledit_jax.errors import CheckpointError, DataError
from ledit_jax.files.readers import read_json
from ledit_jax.models.tokenizer import END, START, CLIPTokenizer, Vocabulary


def find_tokenizer(weights: Path, given: str | Path | None = None) -> Path:
    """The folder of the tokenizer that goes with a file of weights.

    It is `given`, or that of the weights, or the one beside it: a pipeline's text_encoder_2 has its tokenizer_2. Raises
    CheckpointError where there is none, naming the files.
    """
    here = weights.absolute().parent
    folders = [Path(given)] if given else [here, here.with_name(here.name.replace("text_encoder", "tokenizer"))]
    for folder in folders:
        if (folder / "tokenizer.json").is_file() or all((folder / n).is_file() for n in ("vocab.json", "merges.txt")):
            return folder
    looked = " and ".join(dict.fromkeys(map(str, folders)))
    raise CheckpointError(
        f"{weights} has no tokenizer: tokenizer.json, or vocab.json with merges.txt, has to lie in {looked}; or name "
        "their folder as tokenizer"
    )


def read_vocabulary(folder: Path) -> Vocabulary:
    """What a tokenizer's folder says. Raises DataError for files that are damaged or another kind of tokenizer's."""
    padding = _padding(folder)
    path = folder / "tokenizer.json"
    if not path.is_file():
        vocab = _checked_vocab(read_json(folder / "vocab.json"), folder / "vocab.json")
        return Vocabulary(vocab, _read_merges(folder / "merges.txt"), padding)
    held = read_json(path, fields={"model": dict})
    model = held["model"]
    if model.get("type", "BPE") != "BPE" or model.get("end_of_word_suffix") != "</w>":
        raise DataError(f"{path} is no CLIP tokenizer's: its tokens are no pairs that end in </w>")
    vocab, merges = _checked_vocab(model.get("vocab"), path), model.get("merges")
    if not isinstance(merges, list):
        raise DataError(f"{path} has no merges: download it again")
    added = [token.get("content") for token in held.get("added_tokens") or [] if isinstance(token, dict)]
    if unknown := [token for token in added if token not in vocab]:
        raise DataError(f"{path} adds {unknown[0]!r:.40}, which CLIP's own tokenizer has not: take that one")
    pairs = [merge if isinstance(merge, str) else " ".join(map(str, merge)) for merge in merges]
    return Vocabulary(vocab, pairs, padding)


def check_tokenizer(vocabulary: Vocabulary, vocab_size: int, settings: Mapping[str, Any], source: object) -> None:
    """Raises CheckpointError for a tokenizer that does not belong to an encoder of so many tokens.

    settings: of the encoder, where its start and end tokens may stand. OpenAI's files say 0 and 2, which nobody uses.
    """
    tokenizer = CLIPTokenizer(vocabulary, length=2)
    highest = max(vocabulary.vocab.values())
    if highest >= vocab_size or min(vocabulary.vocab.values()) < 0:
        raise CheckpointError(
            f"the tokenizer of {source} does not belong to the encoder: it has ids up to {highest}, and the encoder "
            f"{vocab_size} tokens"
        )
    if settings.get("eos_token_id") == 2:
        return
    for field, found in (("bos_token_id", tokenizer.start), ("eos_token_id", tokenizer.end)):
        if settings.get(field, found) != found:
            raise CheckpointError(
                f"the tokenizer of {source} does not belong to the encoder: its {field} is {found}, and the encoder's "
                f"{settings[field]}"
            )


def _padding(folder: Path) -> str:
    """What transformers pads with: older files have it in a file of their own, which counts more."""
    said: dict[str, Any] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file() and "added_tokens_decoder" not in said:
            said |= read_json(folder / name)
    token = said.get("pad_token") or END
    token = token.get("content") if isinstance(token, dict) else token
    if not isinstance(token, str):
        raise DataError(f"{folder}: its pad_token is no text: download it again")
    return token


def _checked_vocab(vocab: Any, path: Path) -> dict[str, int]:
    if not isinstance(vocab, dict) or any(not isinstance(i, int) or isinstance(i, bool) for i in vocab.values()):
        raise DataError(f"{path} holds no vocabulary, whose tokens have numbers: download it again")
    for token in (START, END):
        if token not in vocab:
            raise DataError(f"{path} has no token {token}: it is no CLIP tokenizer's")
    return vocab


def _read_merges(path: Path) -> Sequence[str]:
    """One pair a line; the first line may name the version. A pair may begin with the same sign."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): download it again") from error
    return [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#version")]
