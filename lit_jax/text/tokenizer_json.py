"""Converts other forms of tokenizers to the text of a ``tokenizer.json``, the form that describes one completely.

That file is of Hugging Face's library tokenizers, ``pip install 'lit_jax[hub]'``.
"""

import gzip
import importlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lit_jax.errors import DAMAGED, UserError, first_line

CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"
# CLIP's file goes on behind the merges that its vocabulary has room for.
_CLIP_MERGES = 49152 - 256 - 2
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_CLIP_CLEANING = (
    (r"[\x{02bc}\x{2018}-\x{201b}]", "'"),
    (r"[\x{201c}-\x{201f}]", '"'),
    (r"[\x{0}-\x{8}\x{b}\x{e}-\x{1f}\x{7f}\x{feff}]", ""),
    (r"\s+", " "),
)
# Kinds of pieces in a SentencePiece model; what users define besides is matched before all else, which BPE cannot.
_NORMAL, _UNKNOWN, _CONTROL, _UNUSED, _BYTE = 1, 2, 3, 5, 6
_BPE = 2


def library() -> Any:
    """The package tokenizers.

    Raises:
        UserError: it is not installed.
    """
    try:
        import tokenizers  # late: most runs have a SentencePiece model
    except ImportError as error:
        raise UserError(
            "tokenizers: found no such package, expected it for a tokenizer.json, vocab.txt or CLIP's vocabulary; "
            "pip install 'lit_jax[hub]'"
        ) from error
    return tokenizers


def from_wordpiece(vocabulary: Sequence[str], *, lowercase: bool = True) -> str:
    """BERT's tokenizer (arXiv 1810.04805) as JSON: ``[CLS]``, word pieces, ``[SEP]``.

    Args:
        vocabulary: the lines of ``vocab.txt``, ids in order.
        lowercase: whether case is folded and accents are dropped.

    Raises:
        UserError: a vocabulary without the special pieces.
    """
    hf = library()
    ids = {piece: i for i, piece in enumerate(vocabulary)}
    missing = [name for name in ("[UNK]", "[CLS]", "[SEP]") if name not in ids]
    if missing:
        raise UserError(
            f"vocab.txt: found no {', '.join(missing)} in {len(ids)} lines, expected BERT's WordPiece vocabulary; give "
            "the file that came with the weights"
        )
    tokenizer = hf.Tokenizer(hf.models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = hf.normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = hf.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = hf.decoders.WordPiece()
    special = [name for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if name in ids]
    return _finished(tokenizer, special, ("[CLS]",), "[SEP]")


def clip_merges(file: bytes) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of CLIP's ``bpe_simple_vocab_16e6.txt.gz``, or of a smaller file of its form.

    The ids: 256 bytes, the same at the end of a word, the merges in order, start and end.

    Raises:
        UserError: not such a file.
    """
    try:
        lines = gzip.decompress(file).decode().split("\n")[1 : _CLIP_MERGES + 1]
        merges = [_pair(line) for line in lines if line]
    except (OSError, *DAMAGED) as error:
        raise UserError(
            f"tokenizer: found {len(file)} bytes of something else, expected CLIP's bpe_simple_vocab_16e6.txt.gz; give "
            "the file that came with open_clip"
        ) from error
    alphabet = _byte_characters()
    pieces = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *map("".join, merges), CLIP_START, CLIP_END]
    return {piece: i for i, piece in enumerate(pieces)}, merges


def merges_of(text: str) -> list[tuple[str, str]]:
    """The pairs of a ``merges.txt``.

    Raises:
        UserError: a line that is no pair.
    """
    try:
        return [_pair(line) for line in text.split("\n") if line and not line.startswith("#version")]
    except ValueError as error:
        raise UserError(f"merges.txt: found {error}, expected two pieces a line; give CLIP's file") from error


def _pair(line: str) -> tuple[str, str]:
    left, right = line.split()
    return left, right


def _byte_characters() -> list[str]:
    """A visible character for each byte, in the order of CLIP's vocabulary: those that are visible come first."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in visible] + [chr(256 + i) for i in range(256 - len(visible))]


def from_clip(vocabulary: Mapping[str, int], merges: Iterable[tuple[str, str]]) -> str:
    """CLIP's byte-level BPE (arXiv 2103.00020) as JSON: start, pieces, end.

    Text is composed (NFC), its quotes straightened, control characters dropped, white space collapsed and case folded.
    OpenAI's and open_clip's own code does so by ftfy and html.unescape, which also mend broken encodings, take
    ligatures and wide letters apart and read HTML's entities; this does not. Nor does it know Greek's final sigma
    among capitals.

    Raises:
        UserError: a vocabulary of another kind.
    """
    hf = library()
    if CLIP_START not in vocabulary or CLIP_END not in vocabulary or "!</w>" not in vocabulary:
        raise UserError(
            f"vocab.json: found {len(vocabulary)} pieces without {CLIP_START}, {CLIP_END} or ends of words, expected "
            "CLIP's; give the tokenizer.json of other models"
        )
    try:
        bpe = hf.models.BPE(dict(vocabulary), list(merges), unk_token=CLIP_END, end_of_word_suffix="</w>")
    except Exception as error:  # the library raises `Exception` itself for a merge of pieces that the vocabulary lacks
        raise UserError(
            f"tokenizer: found {first_line(error)}, expected CLIP's vocabulary and merges; give the files that came "
            "with the weights"
        ) from error
    tokenizer = hf.Tokenizer(bpe)
    cleaning = [hf.normalizers.Replace(hf.Regex(found), by) for found, by in _CLIP_CLEANING]
    tokenizer.normalizer = hf.normalizers.Sequence([hf.normalizers.NFC(), *cleaning, hf.normalizers.Lowercase()])
    words = hf.pre_tokenizers.Split(hf.Regex(_CLIP_WORDS), "removed", invert=True)
    to_bytes = hf.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = hf.pre_tokenizers.Sequence([words, to_bytes])
    # "Ġ" stands for the byte of a space.
    tokenizer.decoder = hf.decoders.Sequence([hf.decoders.Replace("</w>", "Ġ"), hf.decoders.ByteLevel()])
    return _finished(tokenizer, (CLIP_START, CLIP_END), (CLIP_START,), CLIP_END)


def from_sentencepiece(model: bytes) -> str:
    """A SentencePiece BPE model as JSON: pieces, then the end piece.

    The merges are all pairs of pieces that make a piece, in the order of the pieces made: SentencePiece knows no
    pairs, it joins whatever makes the best piece.

    Raises:
        UserError: a unigram model, or one with pieces or white space of a kind that BPE in JSON has not.
    """
    hf = library()
    found = proto_of(model)
    kinds = {piece.type for piece in found.pieces}
    if (
        found.trainer_spec.model_type != _BPE
        or kinds - {_NORMAL, _UNKNOWN, _CONTROL, _UNUSED, _BYTE}
        or found.trainer_spec.treat_whitespace_as_suffix
    ):
        raise UserError(
            "tokenizer: found a SentencePiece model that is no plain BPE, expected one of train_sentencepiece; give "
            "its publisher's tokenizer.json"
        )
    ids = {piece.piece: i for i, piece in enumerate(found.pieces)}
    unknown = next(piece.piece for piece in found.pieces if piece.type == _UNKNOWN)
    bpe = hf.models.BPE(
        ids, _merges(found), unk_token=unknown, fuse_unk=True, byte_fallback=found.trainer_spec.byte_fallback
    )
    tokenizer = hf.Tokenizer(bpe)
    tokenizer.normalizer = _sentencepiece_normalizer(hf, found.normalizer_spec)
    decoders = [hf.decoders.Replace("▁", " "), hf.decoders.ByteFallback(), hf.decoders.Fuse()]
    if found.normalizer_spec.add_dummy_prefix:
        decoders.append(hf.decoders.Strip(" ", 1, 0))
    tokenizer.decoder = hf.decoders.Sequence(decoders)
    special = [piece.piece for piece in found.pieces if piece.type in (_CONTROL, _UNKNOWN)]
    end, pad = found.trainer_spec.eos_piece, found.trainer_spec.pad_piece
    return _finished(tokenizer, special, (), end, pad if pad in ids else end)


def _merges(found: Any) -> list[tuple[str, str]]:
    # Equal scores go to the piece further left in the text, as in SentencePiece; scores fall with the id.
    usable = {piece.piece: -piece.score for piece in found.pieces if piece.type == _NORMAL}
    merges = [
        (score, piece[:cut], piece[cut:])
        for piece, score in usable.items()
        for cut in range(1, len(piece))
        if piece[:cut] in usable and piece[cut:] in usable
    ]
    return [(left, right) for _, left, right in sorted(merges, key=lambda merge: merge[0])]


def _sentencepiece_normalizer(hf: Any, spec: Any) -> Any:
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        # Composed first: of a letter with marks the library's reading of the map may keep the letter only.
        steps += [hf.normalizers.NFC(), hf.normalizers.Precompiled(spec.precompiled_charsmap)]
    if spec.remove_extra_whitespaces:
        steps += [hf.normalizers.Replace(hf.Regex(" {2,}"), " "), hf.normalizers.Replace(hf.Regex(r"\A | \z"), "")]
    if spec.add_dummy_prefix:
        steps.append(hf.normalizers.Prepend("▁"))
    if spec.escape_whitespaces:
        steps.append(hf.normalizers.Replace(" ", "▁"))
    return hf.normalizers.Sequence(steps)


def with_padding(text: str, pad: str, now: int) -> str:
    """A ``tokenizer.json`` that pads with a piece of its vocabulary; as it was if that is the one it has, or none."""
    tokenizer = library().Tokenizer.from_str(text)
    return text if tokenizer.token_to_id(pad) in (None, now) else _padded(tokenizer, pad)


def sentencepiece_with_padding(model: bytes, pad: str) -> bytes:
    """The same of a SentencePiece model."""
    found = proto_of(model)
    if found.trainer_spec.pad_piece == pad or all(piece.piece != pad for piece in found.pieces):
        return model
    found.trainer_spec.pad_piece = pad
    return bytes(found.SerializeToString())


def proto_of(model: bytes) -> Any:
    """A SentencePiece model as its protocol buffer, ``sentencepiece.ModelProto``.

    Raises:
        UserError: the installed protobuf is older than the one that SentencePiece was made with.
    """
    try:
        # By name: the module's classes are made when it is imported, unknown to type checkers.
        module = importlib.import_module("sentencepiece.sentencepiece_model_pb2")
    except Exception as error:  # of a kind that only some versions of protobuf have
        versions = {name: importlib.metadata.version(name) for name in ("sentencepiece", "protobuf")}
        raise UserError(
            f"protobuf: found version {versions['protobuf']}, expected a newer one for sentencepiece "
            f"{versions['sentencepiece']} ({type(error).__name__}); pip install -U protobuf, or use an environment "
            "without what holds it back, such as apache-beam"
        ) from None
    return module.ModelProto.FromString(model)


def _finished(tokenizer: Any, special: Sequence[str], start: Sequence[str], end: str, pad: str = "") -> str:
    """JSON with special pieces, what stands before and behind a text, and padding."""
    hf = library()
    tokenizer.add_special_tokens([hf.AddedToken(name, special=True, normalized=False) for name in special])
    around = [(name, tokenizer.token_to_id(name)) for name in (*start, end)]
    tokenizer.post_processor = hf.processors.TemplateProcessing(
        single=[*start, "$A", end], pair=[*start, "$A", end, "$B:1", f"{end}:1"], special_tokens=around
    )
    return _padded(tokenizer, pad or ("[PAD]" if "[PAD]" in special else end))


def _padded(tokenizer: Any, pad: str) -> str:
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(pad), pad_token=pad)
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
