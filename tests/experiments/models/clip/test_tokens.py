import numpy as np
import pytest

from experiments.data.benchmarks import BENCHMARKS
from experiments.models.clip.tokens import NOT_MERGES, VOCABULARY, Tokenizer, byte_pairs
from tests.experiments.models.clip.recorded import DATA

RECORDED = np.load(DATA / "tokens.npz")


def test_tokens_of_hard_strings_are_clip_s():
    texts = RECORDED["texts"].tolist()
    tokens = Tokenizer()(texts)
    assert len(texts) == 62 and tokens.dtype == np.int32
    np.testing.assert_array_equal(tokens, RECORDED["ids"])


def test_tokens_of_the_names_of_all_benchmarks_are_clip_s():
    names = sorted({name for b in BENCHMARKS.values() for name in b.classes})
    assert names == RECORDED["names"].tolist()
    tokens = Tokenizer()([f"a photo of a {name.replace('_', ' ')}." for name in names])
    longest = RECORDED["names_ids"].shape[1]
    np.testing.assert_array_equal(tokens[:, :longest], RECORDED["names_ids"])
    assert not tokens[:, longest:].any()


def test_a_text_cannot_spell_the_start_or_the_end():
    tokenizer = Tokenizer()
    text = "<|startoftext|> <|endoftext|> <start_of_text> <end_of_text>"
    (tokens,) = tokenizer([text])
    assert (tokens == tokenizer.start).sum() == (tokens == tokenizer.end).sum() == 1


def test_a_text_that_is_too_long_is_cut_with_the_end_token_last():
    tokenizer = Tokenizer(length=6)
    (tokens,) = tokenizer(["one two three four five six"])
    (whole,) = Tokenizer()(["one two three four"])
    np.testing.assert_array_equal(tokens, [*whole[:5], tokenizer.end])


@pytest.mark.parametrize("vocabulary", [NOT_MERGES, 3000])
def test_a_smaller_vocabulary_spells_the_same_text_in_more_pieces(vocabulary):
    tokenizer, texts = Tokenizer(vocabulary), ["a photo of a snowman", "Straße ⛄"]
    tokens = tokenizer(texts)
    assert tokenizer.start == vocabulary - 2 and tokenizer.end == tokens.max()
    pairs = byte_pairs(vocabulary - NOT_MERGES)
    letters = byte_pairs(0)
    for row, whole in zip(tokens, Tokenizer()(texts), strict=True):
        assert (row > 0).sum() >= (whole > 0).sum()
        ids = row[1 : row.argmax()]
        spelled = "".join(pairs.id_to_token(i) for i in ids)
        full = byte_pairs(VOCABULARY - NOT_MERGES)
        ids = whole[1 : whole.argmax()]
        assert spelled == "".join(full.id_to_token(i) for i in ids)
    assert letters.get_vocab_size() == NOT_MERGES - 2


def test_what_is_out_of_range_is_refused():
    with pytest.raises(ValueError, match="vocabulary is 49409"):
        Tokenizer(VOCABULARY + 1)
    with pytest.raises(ValueError, match="vocabulary is 513"):
        Tokenizer(NOT_MERGES - 1)
    with pytest.raises(ValueError, match="length is 1"):
        Tokenizer(length=1)
    with pytest.raises(ValueError, match="texts is one string"):
        Tokenizer()("dog")
    with pytest.raises(ValueError, match="texts must be strings; one is 1"):
        Tokenizer()(["dog", 1])
