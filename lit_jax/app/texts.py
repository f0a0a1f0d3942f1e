"""What the page is told of how texts become numbers, for free-text questions."""

import dataclasses
import json
from typing import Any

from lit_jax.errors import UserError
from lit_jax.text import tokenizer_json
from lit_jax.text.tokenizers import Tokenizer, is_json
from lit_jax.text.units import SLOTS, Reading

_BPE = 2  # the kind of a SentencePiece model
_PIECES = {1, 2, 3, 5, 6}  # normal, unknown, control, unused and byte pieces; those of users are matched first


@dataclasses.dataclass(frozen=True)
class Texts:
    """How the page reads texts.

    Attributes:
        facts: for ``app.json``: ``tokens`` and ``units``, either None.
        tokenizer: the tokenizer's file; empty where the text tower reads no tokens.
        vocabulary: units that are known, those of each kind.
    """

    facts: dict[str, Any]
    tokenizer: bytes = dataclasses.field(repr=False)
    vocabulary: tuple[tuple[str, ...], ...] = dataclasses.field(repr=False)


def texts_of(reading: Reading) -> Texts:
    """What the page needs to read texts as a text tower does.

    Raises:
        UserError: a tokenizer that the page does not know.
    """
    tokenizer, tokens = reading.tokenizer, None
    if reading.context:
        tokens = {
            "kind": _kind(tokenizer), "context": reading.context, "start": list(tokenizer.processor.start),
            "end": tokenizer.end_id, "pad": tokenizer.pad_id,
        }  # fmt: skip
    units = {"kinds": list(reading.kinds), "slots": SLOTS} if reading.kinds else None
    return Texts({"tokens": tokens, "units": units}, tokenizer.model_bytes if tokens else b"", tokenizer.units)


def _kind(tokenizer: Tokenizer) -> str:
    found = _kind_of_json(tokenizer.model_bytes) if is_json(tokenizer.model_bytes) else _kind_of(tokenizer.model_bytes)
    if found not in ("sentencepiece", "wordpiece"):
        raise UserError(
            f"tokenizer: found {found}, expected SentencePiece BPE or BERT's word pieces; the page knows no other"
        )
    return found


def _kind_of(model: bytes) -> str:
    proto = tokenizer_json.proto_of(model)
    if proto.trainer_spec.model_type != _BPE:
        return "a SentencePiece model of another kind than BPE"
    if {piece.type for piece in proto.pieces} - _PIECES or proto.trainer_spec.treat_whitespace_as_suffix:
        return "a SentencePiece model with pieces of its user's"
    return "sentencepiece"


def _kind_of_json(model: bytes) -> str:
    found = json.loads(model)
    kinds = [(found.get(part) or {}).get("type") for part in ("model", "normalizer", "pre_tokenizer")]
    return "wordpiece" if kinds == ["WordPiece", "BertNormalizer", "BertPreTokenizer"] else f"a tokenizer of {kinds[0]}"
