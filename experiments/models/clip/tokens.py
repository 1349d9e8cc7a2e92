"""CLIP's tokens: byte-pair encoding of cleaned, lowered text.

The library `tokenizers` does the work, from the merges that OpenAI learned; what is done to
a text before (repaired by ftfy, HTML's entities read twice) is the original's as well. Of
the 144,762 characters of Unicode 14, alone and between letters, one is cut otherwise than
in open_clip: U+0345, a combining iota.
"""

import functools
import gzip
import html
from collections.abc import Sequence
from pathlib import Path

import ftfy
import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers

MERGES = Path(__file__).with_name("merges.txt.gz")
VOCABULARY = 49408  # 256 bytes, each also as the end of a word, the merges, start and end
NOT_MERGES = 2 * 256 + 2
LENGTH = 77
# Parts of words that are never joined: endings, letters, one digit, anything else.
PIECES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


class Tokenizer:
    """Texts -> tokens.

    With fewer tokens than CLIP's 49,408 the last merges are left out, so that a model with
    a smaller table cuts words into more pieces. A text cannot spell the start or end token.

    Args:
      vocabulary: number of tokens; the last two are the start and the end of a text.
      length: tokens of a text, start and end included.

    Raises:
      ValueError: `vocabulary` or `length` is out of range.
    """

    def __init__(self, vocabulary: int = VOCABULARY, length: int = LENGTH) -> None:
        if not NOT_MERGES <= vocabulary <= VOCABULARY:
            raise ValueError(
                f"vocabulary is {vocabulary}: CLIP's tokenizer, whole or cut short, has "
                f"{NOT_MERGES} to {VOCABULARY} tokens."
            )
        if length < 2:
            raise ValueError(f"length is {length}: at least 2, the start and the end.")
        self.start, self.end, self.length = vocabulary - 2, vocabulary - 1, length
        self._pairs = byte_pairs(vocabulary - NOT_MERGES)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Int32 [K, length]; 0 after the end token, which cuts a text that is too long."""
        if isinstance(texts, str):
            raise ValueError(f"texts is one string, {texts!r}: give a list of them.")
        others = [text for text in texts if not isinstance(text, str)]
        if others:
            raise ValueError(f"texts must be strings; one is {others[0]!r}.")
        tokens = np.zeros((len(texts), self.length), np.int32)
        for row, text in zip(tokens, texts, strict=True):
            ids = self._pairs.encode(cleaned(text)).ids
            ids = [self.start, *ids[: self.length - 2], self.end]
            row[: len(ids)] = ids
        return tokens


def cleaned(text: str) -> str:
    """The text as CLIP reads it: repaired, with single blanks, in lower case."""
    repaired = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(repaired.split()).lower()


@functools.cache
def byte_pairs(count: int) -> tokenizers.Tokenizer:
    """The encoding by the first `count` of CLIP's merges, without start and end."""
    lines = gzip.decompress(MERGES.read_bytes()).decode().split("\n")[:count]
    merges = [(first, second) for first, second in map(str.split, lines)]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())  # what stands for each byte
    words = letters + [f"{x}</w>" for x in letters] + ["".join(pair) for pair in merges]
    vocabulary = {word: number for number, word in enumerate(words)}
    pairs = tokenizers.Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>"))
    pieces = pre_tokenizers.Split(tokenizers.Regex(PIECES), "removed", invert=True)
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pairs.pre_tokenizer = pre_tokenizers.Sequence([pieces, as_bytes])  # pyright: ignore[reportAttributeAccessIssue]
    return pairs
