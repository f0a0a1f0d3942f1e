"""Tokenizers: texts to `[N, T]` ids, by a SentencePiece model or by Hugging Face's package tokenizers."""

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lit_jax.base import foreign
from lit_jax.base.files import written_aside
from lit_jax.errors import UserError
from lit_jax.text import tokenizer_json

PAD_ID, END_ID, UNKNOWN_ID = 0, 1, 2
"""Ids of the three special pieces in the models that `train_sentencepiece` writes."""

_SMALLEST = 256 + 3  # every byte has a piece, and so have padding, end and unknown


# What an end piece is called, and a padding piece, where a tokenizer.json does not say.
_ENDS = ("[SEP]", "<eos>", "<|endoftext|>", "<end_of_text>", "<|im_end|>", "</s>")
_PADS = ("[PAD]", "<pad>", "<|pad|>")
# In the order of preference, in a folder.
_FILES = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.model", "vocab.txt", "vocab.json", "merges.txt",
    "bpe_simple_vocab_16e6.txt.gz",
)  # fmt: skip
_KINDS = "a SentencePiece model, a tokenizer.json, a vocab.txt or CLIP's vocabulary"


class Processor(Protocol):
    """What turns a text into ids and back: one of SentencePiece or one of tokenizers."""

    @property
    def start(self) -> list[int]:
        """Ids that stand before every text."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The pieces of each text, without start and end."""

    def pieces(self, text: str) -> list[str]:
        """The pieces of one text, as written."""

    def decode(self, ids: list[int]) -> str:
        """The text of ids without an end."""


@dataclass(frozen=True)
class Tokenizer:
    """A SentencePiece model or a ``tokenizer.json``, and the three numbers that a text tower needs of it.

    Attributes:
        model_bytes: the model file, whole; `tokenizer_from_bytes` makes an equal tokenizer of it.
        vocab_size: number of pieces; ids run from 0 to vocab_size - 1.
        end_id: id of the end token, which closes every row of `encode`.
        pad_id: id after the end token; the end token's own where the model has no padding piece.
        units: what a text tower that reads units knows of them, see `lit_jax.text.units.vocabulary`.
    """

    model_bytes: bytes = field(repr=False)
    vocab_size: int
    end_id: int
    pad_id: int
    # A `Processor`; None where only the numbers are asked for.
    processor: Any = field(repr=False, compare=False)
    units: tuple[tuple[str, ...], ...] = field(default=(), repr=False)

    def encode(self, texts: Sequence[str], context: int) -> np.ndarray:
        """Token ids of N texts: a start token if the model has one, pieces, the end token, then padding.

        A text with more pieces than there is room for loses the rest, never the end token. A model without a
        padding piece is padded by end tokens; that is harmless, since text towers pool at the first end
        token. A text cannot hold one: a written `</s>` or `[SEP]` becomes other pieces.

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
            kept = [*self.processor.start, *pieces][: context - 1]
            row[: len(kept)] = kept
            row[len(kept)] = self.end_id
        return ids

    def decode(self, ids: np.ndarray) -> list[str]:
        """The N texts of `[N, T]` ids, each up to its first end token, as the model normalises text."""
        counts = lengths(ids, self.end_id)
        return [self.processor.decode(row[: n - 1].tolist()) for row, n in zip(ids, counts, strict=True)]

    def pieces(self, text: str) -> list[str]:
        """The pieces of a text as words and word parts, without start and end token."""
        return self.processor.pieces(text)


@dataclass(frozen=True)
class _SentencePiece:
    model: Any  # not typed closer, because sentencepiece is imported late
    start: list[int] = field(default_factory=list)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self.model.encode(texts)

    def pieces(self, text: str) -> list[str]:
        return self.model.encode(text, out_type=str)

    def decode(self, ids: list[int]) -> str:
        return self.model.decode(ids)


@dataclass(frozen=True)
class _HuggingFace:
    model: Any
    start: list[int]
    end_id: int

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        # A vocabulary that lists the end as a piece like others could still find it in a text.
        found = self.model.encode_batch(texts, add_special_tokens=False)
        return [[i for i in text.ids if i != self.end_id] for text in found]

    def pieces(self, text: str) -> list[str]:
        return [self.model.id_to_token(i) for i in self.encode([text])[0]]

    def decode(self, ids: list[int]) -> str:
        return self.model.decode(ids, skip_special_tokens=True).strip()


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
    """Reads a tokenizer, whatever its form.

    Args:
        path: a SentencePiece model; a ``tokenizer.json``; BERT's ``vocab.txt``; CLIP's
            ``bpe_simple_vocab_16e6.txt.gz``, or its ``vocab.json`` and ``merges.txt``, one of which is named; or a
            folder with one of these. A ``tokenizer_config.json`` beside it says whether BERT's folds case and which
            piece pads.

    Returns:
        The tokenizer. Its `model_bytes` hold all of it, so that they may be another file than `path`.

    Raises:
        UserError: no such file, a file of another kind, a model without an end piece, or no package tokenizers where
            it is needed.
    """
    path = Path(path)
    if path.is_dir():
        return load_tokenizer(_file_in(path))
    try:
        if path.name in ("vocab.json", "merges.txt"):
            model = _clip_pair(path)
        elif path.suffix == ".txt":
            model = _wordpiece(path)
        else:
            model = path.read_bytes()
            if path.suffix == ".gz":
                model = tokenizer_json.from_clip(*tokenizer_json.clip_merges(model)).encode()
    except OSError as error:
        name = error.filename or path
        raise UserError(f"{name}: found {error.strerror}, expected {_KINDS}; check the path") from error
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: found something else, expected {_KINDS}; check the path") from error
    tokenizer = _tokenizer(model, str(path))
    pad = _piece(_settings(path).get("pad_token"))
    return _tokenizer(_with_padding(tokenizer, pad), str(path)) if pad else tokenizer


def _file_in(folder: Path) -> Path:
    for name in _FILES:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: found no tokenizer, expected {', '.join(_FILES[:-1])} or {_FILES[-1]}; give the file")


def _settings(path: Path) -> dict[str, Any]:
    """What stands beside a tokenizer."""
    beside = path.with_name("tokenizer_config.json")
    if not beside.is_file():
        return {}
    found = foreign.read_json(beside, "settings of a tokenizer", "copy it again")
    return found if isinstance(found, dict) else {}


def _piece(value: Any) -> str:
    """A special piece as settings write it: its text, or a dictionary that holds it."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else ""


def _wordpiece(path: Path) -> bytes:
    lines = path.read_text(encoding="utf-8").split("\n")
    vocabulary = [line.rstrip("\r") for line in (lines[:-1] if not lines[-1] else lines)]
    lowercase = _settings(path).get("do_lower_case", True)
    return tokenizer_json.from_wordpiece(vocabulary, lowercase=bool(lowercase)).encode()


def _clip_pair(path: Path) -> bytes:
    vocabulary = foreign.read_json(path.with_name("vocab.json"), "numbers of pieces", "copy it again", dict)
    merges = path.with_name("merges.txt").read_text(encoding="utf-8")
    return tokenizer_json.from_clip(vocabulary, tokenizer_json.merges_of(merges)).encode()


def _with_padding(tokenizer: Tokenizer, pad: str) -> bytes:
    """A model that pads with a given piece: SigLIP's pads with its end, and reads that."""
    if is_json(tokenizer.model_bytes):
        return tokenizer_json.with_padding(tokenizer.model_bytes.decode(), pad, tokenizer.pad_id).encode()
    return tokenizer_json.sentencepiece_with_padding(tokenizer.model_bytes, pad)


def tokenizer_from_bytes(model: bytes) -> Tokenizer:
    """The tokenizer of the content of a SentencePiece model or a ``tokenizer.json``.

    Raises:
        UserError: neither of them, or a model without an end piece.
    """
    return _tokenizer(model, "tokenizer")


def to_tokenizer_json(tokenizer: Tokenizer) -> str:
    """A tokenizer as the text of a ``tokenizer.json``, which gives equal ids in other people's code.

    A SentencePiece BPE model is rebuilt, with equal ids except where a combining mark follows a letter with which it
    has no composed form, or one composed already, and behind half-width katakana: the two libraries compose those
    differently. Special pieces written out in a text, such as ``</s>``, are words to a `Tokenizer`; code that does not
    ask the library for that reads them as themselves.

    Raises:
        UserError: a SentencePiece model that is no BPE, or no package tokenizers.
    """
    if is_json(tokenizer.model_bytes):
        return tokenizer.model_bytes.decode()
    return tokenizer_json.from_sentencepiece(tokenizer.model_bytes)


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
    try:
        with written_aside(path) as aside:
            aside.write_bytes(model)
    except OSError as error:
        raise UserError(f"{path}: found {error.strerror}, expected a place to write to; name another") from error


def is_json(model: bytes) -> bool:
    """Whether a tokenizer's bytes are those of a ``tokenizer.json``, not of a SentencePiece model."""
    return model.lstrip()[:1] == b"{"


def _tokenizer(model: bytes, what: str) -> Tokenizer:
    return _from_json(model, what) if is_json(model) else _from_sentencepiece(model, what)


def _from_sentencepiece(model: bytes, what: str) -> Tokenizer:
    import sentencepiece  # late: it costs start-up time where no text is tokenized

    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
        size = processor.get_piece_size()
    except (RuntimeError, ValueError) as error:  # the latter of pieces that are no UTF-8
        raise UserError(
            f"{what}: found {len(model)} bytes of something else, expected {_KINDS}; give the file that came with the "
            "weights"
        ) from error
    end, pad = processor.eos_id(), processor.pad_id()
    if end < 0:
        raise UserError(_no_end(what))
    return Tokenizer(model, size, end, pad if pad >= 0 else end, _SentencePiece(processor))


def _no_end(what: str) -> str:
    return f"{what}: found no end piece, expected a model with one, such as </s>; train it with an eos id"


def _from_json(model: bytes, what: str) -> Tokenizer:
    library = tokenizer_json.library()
    try:
        found = library.Tokenizer.from_str(model.decode())
        padding = found.padding
        found.no_padding()
        found.no_truncation()
        found.encode_special_tokens = True  # written out they are words like others
        around = found.encode("a")
    except BaseException as error:  # the library raises no narrower one; where Rust panics, that is no `Exception`
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(
            f"{what}: found JSON of another kind, expected a tokenizer.json; give the file that came with the weights"
        ) from error
    text = around.special_tokens_mask.index(0) if 0 in around.special_tokens_mask else 0
    closing = next((token for token in reversed(around.tokens) if token in _ENDS), None)
    end = found.token_to_id(closing or next((name for name in _ENDS if found.token_to_id(name) is not None), ""))
    if end is None:
        raise UserError(_no_end(what))
    pads = [found.token_to_id(name) for name in _PADS]
    pad = padding["pad_id"] if padding else next((i for i in pads if i is not None), end)
    size = max(found.get_vocab(with_added_tokens=True).values()) + 1
    return Tokenizer(model, size, end, pad, _HuggingFace(found, around.ids[:text], end))
