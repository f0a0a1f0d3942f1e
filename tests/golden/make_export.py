"""Golden outputs of exported models: ``PEERS=... python -m tests.golden.make_export [CASE ...]``.

Writes our models in open_clip's layout and lets open_clip read them; needs torch, timm, transformers and open_clip.
"""

import pathlib
import sys
import tempfile

import numpy as np
import torch

from tests.golden import common, export_cases, torch_side

import open_clip  # isort: skip
import timm  # isort: skip
import transformers  # isort: skip
from lit_jax.trained import open_clip_layout


def read_by_open_clip(folder, size):
    """Features of open_clip, its tokens, scale and bias."""
    where = f"local-dir:{folder}"
    model, _, _ = open_clip.create_model_and_transforms(where)
    tokens = open_clip.get_tokenizer(where)(export_cases.CAPTIONS)
    model.eval()
    with torch.no_grad():
        image, text = model.encode_image(torch_side.pixels(size)), model.encode_text(tokens)
    bias = None if model.logit_bias is None else model.logit_bias.item()
    return image.numpy(), text.numpy(), tokens.numpy(), model.logit_scale.item(), bias


def check(case, changes, keep):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        tokenizer = export_cases.tokenizer(folder)
        config, model, params = export_cases.build(changes, tokenizer)
        open_clip_layout.write(folder, config, model, params, tokenizer)
        image, text, tokens, scale, bias = read_by_open_clip(folder, config.image.size)
        ours = export_cases.features(config, model, params, tokenizer)
        assert np.array_equal(tokens, ours[2]), case
        assert scale == params["logit_scale"] and (bias is None or bias == params["logit_bias"]), case
        assert (bias is None) == ("logit_bias" not in params)
        found = export_cases.written(folder)
    kind = found["config"]["model_cfg"]["vision_cfg"].get("timm_model_name", "open_clip's own")
    print(f"{case} ({kind}): image {export_cases.error(ours[0], image):.1e}, text {export_cases.error(ours[1], text):.1e}, "
          f"mean |x| {np.abs(image).mean():.2f} {np.abs(text).mean():.2f}")  # fmt: skip
    if keep:
        common.write(f"export.{case}", preset=case, size=config.image.size, shapes={}, features=image, kind="export",
                     text=text.astype(float).round(9).tolist(), tokens=tokens.tolist(), written=found,
                     made_by=torch_side.versions(open_clip, timm, transformers))  # fmt: skip


def main():
    cases = {**export_cases.CASES, **export_cases.MORE}
    for case in sys.argv[1:] or cases:
        check(case, cases[case], case in export_cases.CASES)


if __name__ == "__main__":
    main()
