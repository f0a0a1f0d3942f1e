import io
import subprocess
import sys

import numpy as np
import pytest
import sentencepiece

from lit_jax.errors import UserError
from lit_jax.tokens import lengths, load_tokenizer, tokenizer_from_bytes, train_sentencepiece

TEXTS = [
    "A photo of the Buff-tailed Coronet Birds Boissonneaua flavescens",
    "A photo of the Common Blue Crab Callinectes sapidus",
    "A photo of the Imperial Moth Insects Eacles imperialis",
    "A photo of the Oakmoss Fungi Evernia prunastri",
    "A photo of the Apple Plants Malus ×domestica",
    "A photo of the Pine White Insects Neophasia menapia",
]
SEEN = "a photo of the blue crab"


def train(texts=TEXTS, **options):
    """A model by sentencepiece itself, for what `train_sentencepiece` never makes."""
    out = io.BytesIO()
    options = {"vocab_size": 60, "hard_vocab_limit": False, "minloglevel": 3, **options}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=out, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_sentencepiece(TEXTS, tmp_path_factory.mktemp("tokens") / "t.model", vocab_size=400)


def test_special_ids_and_size_are_those_of_the_model(tokenizer):
    model = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model_bytes)
    assert (tokenizer.pad_id, tokenizer.end_id) == (0, 1) == (model.pad_id(), model.eos_id())
    assert (model.unk_id(), model.bos_id()) == (2, -1)
    assert tokenizer.vocab_size == model.get_piece_size()


def test_a_row_is_pieces_then_the_end_then_padding(tokenizer):
    pieces = tokenizer.pieces(SEEN)
    model = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model_bytes)
    ids = tokenizer.encode([SEEN, ""], len(pieces) + 3)
    assert ids.dtype == np.int32
    assert ids.tolist() == [
        [*(model.piece_to_id(piece) for piece in pieces), 1, 0, 0],
        [1] + [0] * (len(pieces) + 2),
    ]
    assert tokenizer.encode([], 5).shape == (0, 5)


@pytest.mark.parametrize("context", [2, 3, 5, 8, 9, 10, 40])
def test_truncation_keeps_the_first_pieces_and_the_end_token(tokenizer, context):
    full = tokenizer.encode([SEEN], 100)[0, : len(tokenizer.pieces(SEEN))]
    row = tokenizer.encode([SEEN], context)[0]
    n = min(len(full), context - 1)
    assert row[:n].tolist() == full[:n].tolist()
    assert row[n] == tokenizer.end_id
    assert (row == tokenizer.end_id).sum() == 1
    assert lengths(row[None], tokenizer.end_id).tolist() == [n + 1]


def test_a_context_without_room_for_a_piece_is_refused(tokenizer):
    with pytest.raises(UserError, match=r"context: found 1, expected at least 2 tokens, a piece and the end; raise it"):
        tokenizer.encode(["a"], 1)


def test_a_single_string_is_not_taken_for_a_list_of_letters(tokenizer):
    with pytest.raises(TypeError, match=r"texts: found one string, expected a sequence"):
        tokenizer.encode("a photo", 8)


@pytest.mark.parametrize(
    "text", ["malus ×domestica", "日本語", "кириллица", "épinette à fleurs", "🦋 moth", "ಕನ್ನಡ", "a </s> b <pad>"]
)
def test_any_script_comes_back_whole_and_is_never_unknown(tokenizer, text):
    ids = tokenizer.encode([text], 200)
    assert tokenizer.decode(ids) == [text]
    assert 2 not in ids
    assert ids.max() < tokenizer.vocab_size


def test_case_and_width_are_folded_by_the_model_itself(tokenizer):
    rows = tokenizer.encode(["Malus ×Domestica", "MALUS ×DOMESTICA", "Ｍalus  ×domestica "], 40)
    assert (rows == rows[0]).all()
    assert tokenizer.decode(rows)[0] == "malus ×domestica"


def test_a_written_end_token_does_not_end_the_text(tokenizer):
    ids = tokenizer.encode(["crab </s> moth"], 40)
    assert (ids == 1).sum() == 1
    assert tokenizer.decode(ids) == ["crab </s> moth"]


def test_a_model_without_padding_pads_with_end_tokens_and_unknown_characters_become_unk():
    tokenizer = tokenizer_from_bytes(train(unk_id=0, bos_id=1, eos_id=2, pad_id=-1))
    assert (tokenizer.end_id, tokenizer.pad_id) == (2, 2)
    ids = tokenizer.encode(["Crab 日", "Crab"], 12)
    n = lengths(ids, 2)
    assert (ids[0, n[0] - 1 :] == 2).all()
    assert (ids[:, 0] != 1).all()  # no start token either
    assert 0 in ids[0, : n[0] - 1]
    assert 0 not in ids[1]
    assert tokenizer.decode(ids)[1] == "Crab"


@pytest.mark.parametrize("options", [{"eos_id": -1}, {"user_defined_symbols": ["</s>"]}])
def test_a_model_without_an_end_or_with_one_that_texts_can_hold_is_refused(options):
    with pytest.raises(UserError, match=r"tokenizer: found no end piece, expected a model with one, such as </s>; tra"):
        tokenizer_from_bytes(train(**options))


@pytest.mark.parametrize("content", [b"", b"garbage", b"id,name\n1,Pica\n", bytes(100), b"\x89PNG\r\n\x1a\n"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    message = rf"photo.png: found {len(content)} bytes of something else, expected a SentencePiece model; give the"
    with pytest.raises(UserError, match=message):
        load_tokenizer(path)


def test_a_missing_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"t.model: found No such file or directory, expected a SentencePiece model"):
        load_tokenizer(tmp_path / "t.model")


def test_a_tokenizer_survives_as_a_file_and_as_bytes(tokenizer, tmp_path):
    path = tmp_path / "t.model"
    path.write_bytes(tokenizer.model_bytes)
    for other in (load_tokenizer(path), load_tokenizer(str(path)), tokenizer_from_bytes(tokenizer.model_bytes)):
        assert other == tokenizer
        assert (other.encode(TEXTS, 30) == tokenizer.encode(TEXTS, 30)).all()


def test_training_twice_gives_the_same_bytes_and_leaves_one_file(tokenizer, tmp_path):
    again = train_sentencepiece(iter(TEXTS), tmp_path / "again.model", vocab_size=400)
    assert again.model_bytes == tokenizer.model_bytes == (tmp_path / "again.model").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.model"]


def test_repeats_and_stray_white_space_do_not_change_the_model(tokenizer, tmp_path):
    texts = [TEXTS[0], *(f" {text.replace(' ', '  ')}\n" for text in TEXTS), "", *TEXTS[3:]]
    assert train_sentencepiece(texts, tmp_path / "t.model", vocab_size=400).model_bytes == tokenizer.model_bytes


def test_a_vocabulary_larger_than_the_texts_yield_is_just_smaller(tmp_path):
    small, large = (train_sentencepiece(TEXTS, tmp_path / "t.model", vocab_size=n) for n in (300, 50_000))
    assert small.vocab_size <= 300 < large.vocab_size < 1000
    assert len(large.pieces(TEXTS[0])) < len(small.pieces(TEXTS[0]))


def test_rare_characters_get_a_piece_of_their_own(tmp_path):
    common = [f"a photo of the common moth {i}" for i in range(3000)]
    tokenizer = train_sentencepiece([*common, "Ӝ ж"], tmp_path / "t.model", vocab_size=320)
    assert tokenizer.pieces("ӝ")[-1].endswith("ӝ")


def test_training_prints_nothing(tmp_path, capfd):
    train_sentencepiece(TEXTS, tmp_path / "t.model", vocab_size=400)
    with pytest.raises(UserError):
        train_sentencepiece(TEXTS, tmp_path / "t.model", vocab_size=270)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("size", [0, 256, 259])
def test_a_vocabulary_without_room_for_bytes_is_refused(tmp_path, size):
    with pytest.raises(UserError, match=rf"vocab_size: found {size}, expected more than 259, for 256 bytes, 3 special"):
        train_sentencepiece(TEXTS, tmp_path / "t.model", vocab_size=size)


def test_the_smallest_vocabulary_is_told_and_suffices(tmp_path):
    with pytest.raises(UserError, match=r"vocab_size: found 270, expected at least (\d+), for") as caught:
        train_sentencepiece(TEXTS, tmp_path / "t.model", vocab_size=270)
    least = int(str(caught.value).split("at least ")[1].split(",")[0])
    assert train_sentencepiece(TEXTS, tmp_path / "t.model", vocab_size=least).vocab_size <= least
    with pytest.raises(UserError, match=f"at least {least}"):
        train_sentencepiece(TEXTS, tmp_path / "t.model", vocab_size=least - 1)


@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_training_on_nothing_is_refused(tmp_path, texts):
    with pytest.raises(UserError, match=r"tokenizer texts: found none, expected at least one; give the captions"):
        train_sentencepiece(texts, tmp_path / "t.model", vocab_size=300)


def test_a_model_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"t.model: found No such file or directory, expected a place to write to"):
        train_sentencepiece(TEXTS, tmp_path / "none" / "t.model", vocab_size=400)


def test_lengths_count_up_to_the_first_end_token():
    ids = np.array([[1, 1, 1], [4, 1, 0], [4, 5, 1]])
    assert lengths(ids, 1).tolist() == [1, 2, 3]
    assert lengths(ids, 1).dtype == np.int32
    with pytest.raises(UserError, match=r"token row 1: found no end token 1, expected one in each row; use the token"):
        lengths(np.array([[4, 1], [4, 0]]), 1)


def test_importing_the_text_modules_loads_neither_jax_nor_tensorflow_nor_sentencepiece():
    code = (
        "import sys, lit_jax.prompts, lit_jax.tokens; "
        "print([m for m in ('jax', 'tensorflow', 'sentencepiece') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
