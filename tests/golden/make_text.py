"""Golden outputs of text towers: ``PEERS=... python -m tests.golden.make_text`` with torch, transformers, open_clip.

With a folder of all-MiniLM-L6-v2 as an argument also what transformers makes of its real weights and words.
"""

import pathlib
import sys

import numpy as np
import torch

from tests.golden import common, torch_side
from tests.golden.torch_side import versions

import open_clip  # isort: skip
import transformers  # isort: skip

CAPTIONS = [
    "A photo of the Buff-tailed Coronet Birds Boissonneaua flavescens",
    "a photo of the Apple Plants Malus ×domestica",
    "Épinette à fleurs, Größe, naïve Ærøskøbing",
    "",
    "日本の蝶 Parnassius glacialis",
    "  double  spaces,\ttabs\nand lines ",
    "emoji 🦋 and don't-stop punctuation!?... (1758)",
    "Thunnus thynnus " * 12,
]


def tokens(rows, *, end_id, pad_id, length, vocabulary, start=()):
    """Sentences of several lengths, as lists: start, words, the end, padding."""
    draw = np.random.default_rng(length)
    made = []
    for count in rows:
        words = draw.integers(3, min(vocabulary, end_id if end_id > 3 else vocabulary), count).tolist()
        row = [*start, *(word for word in words if word != end_id), end_id][:length]
        made.append(row + [pad_id] * (length - len(row)))
    return made


def write(case, preset, made, shapes, features, made_by, *, end_id, vocabulary, options=None, **more):
    common.write(case, kind="text", preset=preset, size=len(made[0]), tokens=made, end_id=end_id, shapes=shapes,
                 vocabulary=vocabulary, features=features, made_by=made_by, options=options, **more)  # fmt: skip


def open_clip_case(case="clip_text.open_clip", model=None, vocabulary=49408, ours=None):
    model = model or open_clip.create_model("ViT-B-32")
    end_id = vocabulary - 1
    state = model.state_dict()
    # Of the other tower a name or two, which a reader must leave out; drawing it takes time.
    shapes = {name: shape for name, shape in torch_side.shapes_of(state).items()
              if not name.startswith("visual.") or name == "visual.proj"}  # fmt: skip
    model.load_state_dict({k: torch.from_numpy(v) for k, v in common.arrays(shapes).items()}, strict=False)
    made = tokens((5, 12, 75), start=(end_id - 1,), end_id=end_id, pad_id=0, length=77, vocabulary=vocabulary)
    with torch.no_grad():
        features = model.eval().encode_text(torch.tensor(made))
    write(case, "clip_text", made, shapes, features, versions(open_clip), end_id=end_id, vocabulary=vocabulary,
          embed_dim=512, options=ours)  # fmt: skip


def clip_case(case="clip_text.hugging_face", ours=None, **options):
    vocabulary, end_id = 1000, 999
    config = transformers.CLIPTextConfig(vocab_size=vocabulary, eos_token_id=end_id, bos_token_id=998, pad_token_id=0,
                                         **options)  # fmt: skip
    model, shapes = torch_side.filled_pretrained(transformers.CLIPTextModelWithProjection, config)
    made = tokens((5, 12, 75), start=(998,), end_id=end_id, pad_id=end_id, length=77, vocabulary=998)
    with torch.no_grad():
        features = model(input_ids=torch.tensor(made)).text_embeds
    write(case, "clip_text_openai", made, shapes, features, versions(transformers), end_id=end_id,
          vocabulary=vocabulary, embed_dim=512, options=ours)  # fmt: skip


def siglip_case(case="siglip_text_b.hugging_face", ours=None, **options):
    vocabulary = 1000
    config = transformers.SiglipTextConfig(
        vocab_size=vocabulary, hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_size=768,
        bos_token_id=None, eos_token_id=1, pad_token_id=1, **options,
    )  # fmt: skip
    model, shapes = torch_side.filled_pretrained(transformers.SiglipTextModel, config)
    made = tokens((5, 12, 63), end_id=1, pad_id=1, length=64, vocabulary=vocabulary)
    with torch.no_grad():
        features = model(input_ids=torch.tensor(made)).pooler_output
    write(case, "siglip_text_b", made, shapes, features, versions(transformers), end_id=1, vocabulary=vocabulary,
          embed_dim=768, options=ours)  # fmt: skip


def _masked(made, end_id):
    made = torch.tensor(made)
    first = (made == end_id).int().argmax(1)
    return made, (torch.arange(made.shape[1])[None] <= first[:, None]).long()


def _mean(x, mask):
    return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def bert_cases():
    made = tokens((5, 12, 22), start=(101,), end_id=102, pad_id=0, length=24, vocabulary=30522)
    words, mask = _masked(made, 102)
    small = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
    for case, preset, options, pool, ours in (
        ("minilm_l6.hugging_face", "minilm_l6", small, "mean", {}),
        ("bert_base.hugging_face", "bert_base", {"num_hidden_layers": 2}, "first", {"depth": 2}),
    ):
        config = transformers.BertConfig(vocab_size=30522, num_attention_heads=12, **options)
        model, shapes = torch_side.filled_pretrained(transformers.BertModel, config)
        with torch.no_grad():
            x = model(input_ids=words, attention_mask=mask).last_hidden_state
        features = x[:, 0] if pool == "first" else _mean(x, mask)
        write(case, preset, made, shapes, features, versions(transformers), end_id=102, vocabulary=30522, options=ours)


def mt5_case():
    vocabulary = 1000
    model, shapes = torch_side.filled_pretrained(
        transformers.MT5EncoderModel, transformers.MT5Config(vocab_size=vocabulary)
    )
    made = tokens((5, 20, 139), end_id=1, pad_id=0, length=140, vocabulary=vocabulary)
    words, mask = _masked(made, 1)
    with torch.no_grad():
        features = _mean(model(input_ids=words, attention_mask=mask).last_hidden_state, mask)
    write("mt5_small.hugging_face", "mt5_small", made, shapes, features, versions(transformers), end_id=1,
          vocabulary=vocabulary, options={"vocab_size": vocabulary})  # fmt: skip


def minilm_case(folder):
    """Real weights and words: what a user gets."""
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)
    model = transformers.BertModel.from_pretrained(folder).eval()
    batch = tokenizer(CAPTIONS, padding="max_length", truncation=True, max_length=24, return_tensors="pt")
    with torch.no_grad():
        x = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    write("minilm_l6.real", "minilm_l6", batch["input_ids"].tolist(), {}, _mean(x, batch["attention_mask"]),
          versions(transformers), end_id=102, vocabulary=30522, captions=CAPTIONS, real=True)  # fmt: skip


def main():
    open_clip_case()
    clip_case()
    siglip_case()
    bert_cases()
    mt5_case()
    if len(sys.argv) > 1:
        minilm_case(pathlib.Path(sys.argv[1]))


if __name__ == "__main__":
    main()
