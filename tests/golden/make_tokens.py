"""Ids by other people's tokenizers: ``PEERS=... python -m tests.golden.make_tokens CATEGORIES.csv MINILM_FOLDER``.

The first argument is iNaturalist 2021's table of categories. Of each vocabulary that is not ours to ship only texts
and ids are kept, in ``tokens.json``.
"""

import csv
import json
import sys

from tests.golden import common, torch_side

import open_clip  # isort: skip
import transformers  # isort: skip

CONTEXT = 32
# Of several scripts and forms; without those in which ours differ, which the documents of the functions name.
TRICKY = [
    "", "  double  spaces,\ttabs\nand lines ", "UPPER Case MiXeD", "Malus ×domestica", "Épinette à fleurs",
    "E\u0301pinette de\u0301compose\u0301", "日本の蝶 Parnassius", "한국어 조류", "🦋 moth", "don't I'll we've they're it's",
    "...!?--()[]", "1758, 3.14 42nd", "straße STRASSE", "кириллица Ёлка", "हिन्दी", "العربية", "nbsp\u00a0here", "½ ² ™",
    "word " * 60, "x" * 120, "Anna’s “Eighty-eight”",
]  # fmt: skip


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[::60]
    texts = [*TRICKY, *(f"A photo of the {row['common_name']} {row['supercategory']} {row['name']}" for row in rows)]
    bert = transformers.BertTokenizer.from_pretrained(sys.argv[2])
    clip = open_clip.get_tokenizer("ViT-B-32")
    ids = {
        "minilm_l6": bert(texts, truncation=True, max_length=CONTEXT)["input_ids"],
        "clip": [row[: row.index(49407) + 1] for row in clip(texts, context_length=CONTEXT).tolist()],
    }
    found = {"made_by": torch_side.versions(open_clip, transformers), "context": CONTEXT, "texts": texts, "ids": ids}
    lines = json.dumps(found, ensure_ascii=False, separators=(",", ":")).replace("],[", "],\n[")
    (common.FOLDER / "tokens.json").write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
