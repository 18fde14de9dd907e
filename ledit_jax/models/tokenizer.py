"""CLIP's tokenizer: text to ids, by the package `tokenizers`.

Byte-level pairs of a lower-cased text (Radford et al., arXiv 2103.00020), set up as transformers' CLIPTokenizer is.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import tokenizers
from jaxtyping import Int
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers

from ledit_jax.errors import DataError, one_line

START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer knows: the same of tokenizer.json as of vocab.json and merges.txt."""

    vocab: Mapping[str, int]
    """The id of every token: of byte-level letters, of what they merge to, and of START and END."""
    merges: Sequence[str]
    """"a b</w>": pairs of tokens that become one, the first ones first."""
    padding: str = END
    """The token that fills a short prompt up."""

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that depend on everything here."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


class CLIPTokenizer:
    """Prompts to ids of a fixed length: the start, the text, the end, padding."""

    def __init__(self, vocabulary: Vocabulary, length: int):
        """Raises DataError for a vocabulary that is none: START or END is missing, or merges do not fit it."""
        self.vocabulary, self.length = vocabulary, length
        for token in (START, END, vocabulary.padding):
            if token not in vocabulary.vocab:
                raise DataError(f"the tokenizer's vocabulary has no {token!r:.40}: give the files of a CLIP tokenizer")
        self.start, self.end, self.padding = (vocabulary.vocab[t] for t in (START, END, vocabulary.padding))
        self._tokenizer = _make(vocabulary)

    def __call__(self, prompts: Sequence[str]) -> tuple[Int[np.ndarray, "B S"], Int[np.ndarray, " B"]]:
        """(int32 ids, how many tokens of each prompt were cut off its end to make it fit)."""
        texts = [
            prompt.encode("utf-8", "replace").decode() for prompt in prompts
        ]  # half of a surrogate pair is no text
        # One by one: encode_batch starts threads, after which a process should not be forked.
        found = [self._tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        room = self.length - 2
        ids = np.full((len(prompts), self.length), self.padding, np.int32)
        for row, tokens in zip(ids, found, strict=True):
            kept = tokens[:room]
            row[: len(kept) + 2] = [self.start, *kept, self.end]
        return ids, np.array([max(0, len(tokens) - room) for tokens in found], np.int32)


def _make(vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    pairs = [tuple(merge.split(" ")) for merge in vocabulary.merges]
    if wrong := [pair for pair in pairs if len(pair) != 2]:
        raise DataError(
            f"the tokenizer's merges hold {' '.join(wrong[0])!r:.40}, and are two tokens each: get it again"
        )
    try:
        model = models.BPE(
            dict(vocabulary.vocab), pairs, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=END
        )
    except Exception as error:  # the package's errors are plain Exceptions
        reason = one_line(error)[:120]
        raise DataError(
            f"the tokenizer's merges do not fit its vocabulary ({reason}): take both from one place"
        ) from error
    tokenizer = tokenizers.Tokenizer(model)
    space = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), space, normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    # Where a text names them, they are themselves.
    special = dict.fromkeys((START, END, vocabulary.padding))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer
