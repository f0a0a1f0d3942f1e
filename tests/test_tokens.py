import gzip
import importlib.util
import io
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import sentencepiece

from lit_jax.errors import UserError
from lit_jax.text import tokenizer_json
from lit_jax.text.tokenizers import (
    lengths,
    load_tokenizer,
    to_tokenizer_json,
    tokenizer_from_bytes,
    train_sentencepiece,
)

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


def test_a_json_that_the_library_panics_of_is_refused(wordpiece):
    found = json.loads(load_tokenizer(wordpiece).model_bytes)
    found["post_processor"]["single"][0]["SpecialToken"]["id"] = "[NONE]"  # is not among its special tokens
    with pytest.raises(UserError, match=r"tokenizer: found JSON of another kind, expected a tokenizer\.json"):
        tokenizer_from_bytes(json.dumps(found).encode())


def test_a_model_whose_pieces_are_no_text_is_refused():
    twice = b"\x0a\x03\x0a\x01\xb1" * 2  # the library says that it is defined already, in bytes that are no UTF-8
    with pytest.raises(UserError, match="tokenizer: found [0-9]+ bytes of something else, expected a SentencePiece"):
        tokenizer_from_bytes(train() + twice)


@pytest.mark.parametrize("content", [b"", b"garbage", b"id,name\n1,Pica\n", bytes(100), b"\x89PNG\r\n\x1a\n"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    message = rf"photo.png: found {len(content)} bytes of something else, expected a SentencePiece model, a tok"
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
        "import sys, lit_jax.text.prompts, lit_jax.text.tokenizers; "
        "print([m for m in ('jax', 'tensorflow', 'sentencepiece') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# Tokenizers of other kinds.

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "tokens.json").read_text(encoding="utf-8"))
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "##s", "the", "moth", ",", "epi", "##nette", "[", "]", "sep"]  # fmt: skip
MERGES = [("t", "h"), ("th", "e</w>"), ("m", "o"), ("mo", "th</w>"), ("t", "h</w>"), ("'", "s</w>")]
TRICKY = [
    "", "  double  spaces,\ttabs\nand lines ", " leading", "trailing ", "\u00a0", "UPPER Case MiXeD", "Malus ×domestica",
    "Épinette à fleurs", "e\u0301pinette", "E\u0301PINETTE de\u0301compose\u0301", "e\u0302\u0301 ế", "A\u030a Å Å", "日本の蝶 Parnassius",
    "한국어 조류", "\u1112\u1161\u11ab", "🦋 moth", "👩‍👩‍👧 family", "🏳️‍🌈", "don't I'll we've", "a </s> b <pad> <unk>", "<0x41> byte",
    "[SEP] [CLS]", "<|endoftext|>", "▁under ▁▁two", "▁", "...!?--()[]", "1758, 3.14 42nd", "ﬁsh ﬂower", "Ｆｕｌｌ width",
    "straße STRASSE ẞ", "İstanbul ıI", "Ὀδυσσεύς ΣΊΣΥΦΟΣ", "кириллица Ёлка", "ಕನ್ನಡ", "हिन्दी क्षि", "العربية", "עִבְרִית", "zero\u200bwidth",
    "a\u200db\ufeff", "soft\u00adhyphen", "ideo\u3000graphic", "control\x01char\x7f", "½ ² ™ ℃ №", "“curly” ‘quotes’ – —", "&amp; html",
    "x" * 120, "ǅ Ǆ", "ｱｲｳ", "𝐀𝟏 math", "mix日本and한국x", "end\n", "￼ \ufffd", "Ⓐ ㎏ ﷺ", "abab abba aaaa",
]  # fmt: skip


def clip_file():
    import gzip

    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES), ""]
    return gzip.compress("\n".join(lines).encode())


@pytest.fixture
def clip_folder(tmp_path):
    (tmp_path / "bpe_simple_vocab_16e6.txt.gz").write_bytes(clip_file())
    vocabulary, merges = tokenizer_json.clip_merges(clip_file())
    (tmp_path / "pair").mkdir()
    (tmp_path / "pair" / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "pair" / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
    return tmp_path


@pytest.fixture
def wordpiece(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return tmp_path


def test_wordpieces_stand_between_start_and_end(wordpiece):
    tokenizer = load_tokenizer(wordpiece / "vocab.txt")
    assert (tokenizer.vocab_size, tokenizer.end_id, tokenizer.pad_id) == (17, 3, 0)
    ids = tokenizer.encode(["A photo of the moths, Épinette", "", "zebra"], 12)
    assert ids.tolist() == [
        [2, 5, 6, 7, 9, 10, 8, 11, 12, 13, 3, 0],
        [2, 3] + [0] * 10,
        [2, 1, 3] + [0] * 9,
    ]
    assert tokenizer.decode(ids)[:2] == ["a photo of the moths, epinette", ""]
    assert tokenizer.pieces("moths") == ["moth", "##s"]
    assert tokenizer.encode(["a photo of the moths"], 4).tolist() == [[2, 5, 6, 3]]


def test_a_written_end_piece_is_words(wordpiece):
    assert load_tokenizer(wordpiece).encode(["the [SEP] moth"], 9).tolist() == [[2, 9, 14, 16, 15, 10, 3, 0, 0]]


def test_settings_beside_a_vocabulary_say_whether_case_is_folded_and_what_pads(wordpiece):
    (wordpiece / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": False, "pad_token": {"content": "[MASK]"}})
    )
    tokenizer = load_tokenizer(wordpiece)
    assert tokenizer.encode(["the THE"], 6).tolist() == [[2, 9, 1, 3, 4, 4]]
    assert tokenizer_from_bytes(tokenizer.model_bytes) == tokenizer


def test_settings_say_what_pads_a_sentencepiece_model(tokenizer, tmp_path):
    (tmp_path / "spiece.model").write_bytes(tokenizer.model_bytes)
    assert load_tokenizer(tmp_path) == tokenizer
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "</s>"}))
    other = load_tokenizer(tmp_path)
    assert (other.pad_id, other.end_id) == (1, 1)
    ids = tokenizer.encode([SEEN], 30)
    assert (other.encode([SEEN], 30) == np.where(ids == 0, 1, ids)).all()


def test_clips_ids_are_bytes_then_ends_of_words_then_merges(clip_folder):
    tokenizer = load_tokenizer(clip_folder)
    assert (tokenizer.vocab_size, tokenizer.end_id, tokenizer.pad_id) == (520, 519, 519)
    e, th, the, mo, moth, th_end, s = 256 + ord("e") - 33, *range(512, 518)
    ids = tokenizer.encode(["The  MOTH", "moth’s bath", "日", ""], 8)
    start, end = 518, 519
    assert ids[0].tolist() == [start, the, moth] + [end] * 5
    assert ids[1].tolist() == [start, moth, s, ord("b") - 33, ord("a") - 33, th_end, end, end]
    assert th not in ids and mo not in ids and e not in ids
    assert (ids[2] == end).argmax() == 4  # three bytes
    assert tokenizer.decode(ids) == ["the moth", "moth 's bath", "日", ""]


def test_each_form_of_clips_vocabulary_is_the_same_tokenizer(clip_folder):
    one = load_tokenizer(clip_folder)
    for name in ("pair", "pair/vocab.json", "pair/merges.txt"):
        assert load_tokenizer(clip_folder / name) == one
    (clip_folder / "tokenizer.model").write_bytes(one.model_bytes)  # as record sets name it
    assert load_tokenizer(clip_folder / "tokenizer.model") == one
    (clip_folder / "tokenizer.json").write_bytes(one.model_bytes)
    assert load_tokenizer(clip_folder) == one
    (clip_folder / "pair" / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"merges.txt: found No such file or directory, expected a SentencePiece model"):
        load_tokenizer(clip_folder / "pair")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.txt", b"a\nb\n", r"vocab.txt: found no \[UNK\], \[CLS\], \[SEP\] in 2 lines, expected BERT's"),
        (
            "vocab.txt",
            b"\xff\xfe",
            r"vocab.txt: found something else, expected a SentencePiece model, a tokenizer.json",
        ),
        ("x.txt.gz", b"\x1f\x8b", r"found 2 bytes of something else, expected CLIP's bpe_simple"),
        ("x.txt.gz", gzip.compress(bytes(99), mtime=0)[:12] + b"\xff" * 9, "bytes of something else, expected CLIP's"),
        (
            "x.txt.gz",
            gzip.compress(b"#version: 0.2\na \xe4\xb8\xad\n", mtime=0),
            "found .* out of vocabulary, expected CLIP's",
        ),
        ("tokenizer.json", b'{"a": 1}', r"found JSON of another kind, expected a tokenizer.json"),
        ("tokenizer.json", b"{", r"found JSON of another kind, expected a tokenizer.json"),
        ("vocab.json", b"{}", r"merges.txt: found No such file"),
        ("notes", b"", r"found 0 bytes of something else"),
    ],
)
def test_files_of_other_kinds_are_refused_in_a_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path / name)


@pytest.mark.parametrize(
    ("vocabulary", "merges"),
    [
        ({"b": "1"}, ""),
        ({"b": {}}, ""),
        ({"b": -1}, ""),
        ({"b": 10**30}, ""),
        ({}, "b i\n"),
        ({"b": 1, "i": 2}, "b i\n"),
    ],
)
def test_a_vocabulary_and_merges_that_do_not_fit_are_refused_in_a_line(tmp_path, vocabulary, merges):
    known = {"!</w>": 0, "<|startoftext|>": 3, "<|endoftext|>": 4}
    (tmp_path / "vocab.json").write_text(json.dumps({**known, **vocabulary}))
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}")
    with pytest.raises(UserError, match=r"tokenizer: found .*, expected CLIP's vocabulary and merges; give the files"):
        load_tokenizer(tmp_path / "merges.txt")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"found no tokenizer, expected tokenizer.json, tokenizer.model, .* or bpe_simp"
    ):
        load_tokenizer(tmp_path)


def test_without_the_library_one_line_says_what_to_install(wordpiece, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"tokenizers: found no such package, .*; pip install 'lit_jax\[hub\]'"):
        load_tokenizer(wordpiece)


def test_a_json_of_our_model_gives_equal_ids(tokenizer):
    other = tokenizer_from_bytes(tokenizer_json_of(tokenizer))
    assert (other.vocab_size, other.end_id, other.pad_id) == (tokenizer.vocab_size, 1, 0)
    for texts in (TRICKY, [chr(i) for i in range(32, 0x3000) if not 0xD800 <= i < 0xE000]):
        ids, theirs = tokenizer.encode(texts, 200), other.encode(texts, 200)
        assert [text for text, same in zip(texts, (ids == theirs).all(1), strict=True) if not same] == []
    assert other.decode(other.encode(TRICKY, 200)) == tokenizer.decode(tokenizer.encode(TRICKY, 200))
    assert other.pieces(SEEN) == tokenizer.pieces(SEEN)
    assert to_tokenizer_json(other).encode() == other.model_bytes


def test_a_json_of_our_model_gives_equal_ids_for_all_species(shared_data, tmp_path):
    import csv

    with open(shared_data / "inat2021-categories.csv", encoding="utf-8") as file:
        texts = [
            f"A photo of the {row['common_name']} {row['supercategory']} {row['name']}" for row in csv.DictReader(file)
        ]
    tokenizer = train_sentencepiece(texts[::10], tmp_path / "t.model", vocab_size=2000)
    other = tokenizer_from_bytes(tokenizer_json_of(tokenizer))
    assert (tokenizer.encode(texts, 64) == other.encode(texts, 64)).all()


def tokenizer_json_of(tokenizer):
    return to_tokenizer_json(tokenizer).encode()


@pytest.mark.parametrize("options", [{}, {"model_type": "bpe", "user_defined_symbols": ["<x>"]}])
def test_a_unigram_model_and_one_with_symbols_have_no_json(options):
    with pytest.raises(UserError, match="found a SentencePiece model that is no plain BPE, expected one of train_sent"):
        to_tokenizer_json(tokenizer_from_bytes(train(**options)))


def check_golden(tokenizer, name):
    context = GOLDEN["context"]
    ids = tokenizer.encode(GOLDEN["texts"], context)
    n = lengths(ids, tokenizer.end_id)
    got = [row[:count].tolist() for row, count in zip(ids, n, strict=True)]
    differing = [t for t, one, other in zip(GOLDEN["texts"], got, GOLDEN["ids"][name], strict=True) if one != other]
    assert differing == []


def test_ids_of_minilm_equal_those_of_transformers(minilm_folder):
    check_golden(load_tokenizer(minilm_folder), "minilm_l6")
    check_golden(load_tokenizer(minilm_folder / "vocab.txt"), "minilm_l6")


def test_ids_of_clip_equal_those_of_open_clip():
    spec = importlib.util.find_spec("open_clip")
    if spec is None:
        pytest.skip("open_clip, which holds CLIP's vocabulary, is not installed")
    check_golden(load_tokenizer(pathlib.Path(spec.origin).with_name("bpe_simple_vocab_16e6.txt.gz")), "clip")
