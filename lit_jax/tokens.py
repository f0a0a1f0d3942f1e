"""Text to [N, T] ids."""

import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lit_jax.errors import UserError

PAD_ID, END_ID, UNKNOWN_ID = 0, 1, 2
"""Ids of the three special pieces in the models that `train_sentencepiece` writes."""

_SMALLEST = 256 + 3  # every byte has a piece, and so have padding, end and unknown


@dataclass(frozen=True)
class Tokenizer:
    """A SentencePiece model and the three numbers that a text tower needs of it.

    Attributes:
        model_bytes: the model file, whole; `tokenizer_from_bytes` makes an equal tokenizer of it.
        vocab_size: number of pieces; ids run from 0 to vocab_size - 1.
        end_id: id of the end token, which closes every row of `encode`.
        pad_id: id after the end token; the end token's own where the model has no padding piece.
    """

    model_bytes: bytes = field(repr=False)
    vocab_size: int
    end_id: int
    pad_id: int
    # Not typed closer, because sentencepiece is imported late.
    processor: Any = field(repr=False, compare=False)

    def encode(self, texts: Sequence[str], context: int) -> np.ndarray:
        """Token ids of N texts: pieces, the end token, then padding.

        A text of more than `context` - 1 pieces loses the rest, never the end token. A model without a
        padding piece is padded by end tokens; that is harmless, since text towers pool at the first end
        token. A text cannot hold one: the end is a control piece, so a written `</s>` becomes other pieces.

        Args:
            texts: N texts of any script; what the model does not know becomes bytes or the unknown piece.
            context: T, tokens a row, >= 2.

        Returns:
            `[N, T]` int32 in [0, vocab_size).

        Raises:
            UserError: `context` is below 2.
            TypeError: `texts` is a single string.
        """
        if isinstance(texts, str):
            raise TypeError("texts: found one string, expected a sequence of them")
        if context < 2:
            raise UserError(f"context: found {context}, expected at least 2 tokens, a piece and the end; raise it")
        ids = np.full((len(texts), context), self.pad_id, np.int32)
        for row, pieces in zip(ids, self.processor.encode(list(texts)), strict=True):
            kept = pieces[: context - 1]
            row[: len(kept)] = kept
            row[len(kept)] = self.end_id
        return ids

    def decode(self, ids: np.ndarray) -> list[str]:
        """The N texts of `[N, T]` ids, each up to its first end token, as the model normalises text."""
        counts = lengths(ids, self.end_id)
        return [self.processor.decode(row[: n - 1].tolist()) for row, n in zip(ids, counts, strict=True)]

    def pieces(self, text: str) -> list[str]:
        """The pieces of a text as words and word parts, without the end token."""
        return self.processor.encode(text, out_type=str)


def lengths(ids: np.ndarray, end_id: int) -> np.ndarray:
    """Tokens of each row up to and with the first end token.

    Args:
        ids: `[N, T]` integers.
        end_id: the id of the end token.

    Returns:
        `[N]` int32 in [1, T]; the length less 1 is the position at which text towers pool.

    Raises:
        UserError: a row has no end token.

    Example:
        >>> lengths(np.array([[5, 6, 1, 0], [7, 1, 1, 1]]), 1).tolist()
        [3, 2]
    """
    ends = ids == end_id
    without = np.flatnonzero(~ends.any(axis=1))
    if len(without):
        raise UserError(
            f"token row {without[0]}: found no end token {end_id}, expected one in each row; "
            "use the tokenizer that made the ids"
        )
    return (ends.argmax(axis=1) + 1).astype(np.int32)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Reads a SentencePiece model file.

    Raises:
        UserError: no such file, not a SentencePiece model, or a model without an end piece.
    """
    try:
        model = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: found {error.strerror}, expected a SentencePiece model; check the path") from error
    return _tokenizer(model, str(path))


def tokenizer_from_bytes(model: bytes) -> Tokenizer:
    """The tokenizer of a SentencePiece model file's content.

    Raises:
        UserError: not a SentencePiece model, or a model without an end piece.
    """
    return _tokenizer(model, "tokenizer")


def train_sentencepiece(texts: Iterable[str], path: str | Path, *, vocab_size: int) -> Tokenizer:
    """Trains a SentencePiece BPE model on texts and writes it to `path`.

    The model folds case and compatibility forms itself (rule `nmt_nfkc_cf`), so that nobody's spelling of a
    species matters later. Every character seen gets a piece and any other falls back to bytes: nothing is
    ever unknown. There is no start piece. The same texts in the same order give the same bytes; another
    order may not. The file is written aside and then renamed. Reference: Sennrich et al., 2016 (BPE).

    BPE and not SentencePiece's unigram model: that one considers only pieces that stand in two different words,
    so captions, whose words are few and much repeated, come out as letters.

    Args:
        texts: the captions; repeats count once, so that a class with more photos does not weigh more.
        path: the model file to write.
        vocab_size: pieces wanted. Where the texts do not yield as many, the model has fewer: read the true
            number from the result.

    Returns:
        The tokenizer just written.

    Raises:
        UserError: no text, a vocabulary too small for 256 bytes, 3 special pieces and the characters seen,
            or a path that cannot be written.
    """
    cleaned = list(dict.fromkeys(filter(None, (" ".join(text.split()) for text in texts))))
    if not cleaned:
        raise UserError("tokenizer texts: found none, expected at least one; give the captions to train on")
    if vocab_size <= _SMALLEST:
        raise UserError(_too_small(vocab_size, f"more than {_SMALLEST}"))
    model = _train(cleaned, vocab_size)
    _write(Path(path), model)
    return _tokenizer(model, str(path))


def _train(texts: Sequence[str], vocab_size: int) -> bytes:
    import sentencepiece  # late: most commands never train a tokenizer

    out = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=out,
            vocab_size=vocab_size,
            model_type="bpe",
            hard_vocab_limit=False,
            character_coverage=1.0,
            byte_fallback=True,
            normalization_rule_name="nmt_nfkc_cf",
            pad_id=PAD_ID,
            eos_id=END_ID,
            unk_id=UNKNOWN_ID,
            bos_id=-1,
            max_sentence_length=1 << 20,  # longer texts would be skipped without a word
            num_threads=1,  # the sums of more threads depend on who comes first
            minloglevel=3,
        )
    except RuntimeError as error:
        needed = re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error))
        if needed is None:
            raise
        raise UserError(_too_small(vocab_size, f"at least {needed[1]}")) from error
    return out.getvalue()


def _too_small(vocab_size: int, expected: str) -> str:
    return (
        f"vocab_size: found {vocab_size}, expected {expected}, for 256 bytes, 3 special pieces and each "
        "character of the texts; raise it"
    )


def _write(path: Path, model: bytes) -> None:
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        aside.write_bytes(model)
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise UserError(f"{path}: found {error.strerror}, expected a place to write to; name another") from error


def _tokenizer(model: bytes, what: str) -> Tokenizer:
    import sentencepiece  # late: it costs start-up time where no text is tokenized

    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
        size = processor.get_piece_size()
    except RuntimeError as error:
        raise UserError(
            f"{what}: found {len(model)} bytes of something else, expected a SentencePiece model; give the .model file"
        ) from error
    end, pad = processor.eos_id(), processor.pad_id()
    if end < 0:
        raise UserError(f"{what}: found no end piece, expected a model with one, such as </s>; train it with an eos id")
    return Tokenizer(model, size, end, pad if pad >= 0 else end, processor)
