"""The recorded optimisation by torch: parameter groups of open_clip's model, AdamW at the recipe's rates.

Run with the peers' Python. open_clip's rule spares from decay what has fewer than two axes, and what is named like a
batch norm, a layer norm, a bias or the logit scale.
"""

import json
import math
import pathlib

import numpy as np
import torch

from tests.golden import torch_side  # noqa: F401  # before open_clip, which needs its torchvision

import open_clip  # isort: skip

STEPS = (0, 499, 999, 1999, 11_447, 20_351)
WARMUPS = (500, 1000, 2000)
HORIZON, PEAK = 32 * 636, 5e-4


def rate(step: int, warmup: int) -> float:
    """As recorded: linear by step, then half a cosine to 0 at the horizon."""
    if step < warmup:
        return PEAK * (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (HORIZON - warmup))) * PEAK


def groups() -> list[list[object]]:
    """Size and decay of every trainable parameter: the text tower, the image projection, the logit scale."""
    model = open_clip.create_model("ViT-B-32")
    text = {name: x for name, x in model.named_parameters() if not name.startswith("visual.")}
    projection = torch.nn.Linear(1024, 512)
    named = {**text, **{f"visual.head.proj.{name}": x for name, x in projection.named_parameters()}}
    spared = ("bn", "ln", "bias", "logit_scale")
    return sorted([x.numel(), not (x.ndim < 2 or any(part in name for part in spared))] for name, x in named.items())


def trajectory() -> dict[str, np.ndarray]:
    """Two parameters, one of them without decay, moved once at the rate of each of the steps."""
    draw = np.random.default_rng(0)
    start = {"kernel": draw.normal(size=(3, 4)), "bias": draw.normal(size=4)}
    gradients = {name: draw.normal(size=(len(STEPS), *x.shape)) for name, x in start.items()}
    params = {name: torch.nn.Parameter(torch.tensor(x)) for name, x in start.items()}
    parts = [{"params": [params["kernel"]], "weight_decay": 0.1}, {"params": [params["bias"]], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(parts, lr=PEAK, betas=(0.9, 0.98), eps=1e-6)
    seen: dict[str, list[np.ndarray]] = {name: [] for name in start}
    for i, step in enumerate(STEPS):
        for part in adamw.param_groups:
            part["lr"] = rate(step, 1000)
        for name, x in params.items():
            x.grad = torch.tensor(gradients[name][i])
        adamw.step()
        for name, x in params.items():
            seen[name].append(x.detach().numpy().copy())
    return {
        **{f"start/{name}": x for name, x in start.items()},
        **{f"gradient/{name}": x for name, x in gradients.items()},
        **{f"after/{name}": np.stack(x) for name, x in seen.items()},
    }


def main() -> None:
    rates = np.array([[rate(step, warmup) for step in STEPS] for warmup in WARMUPS])
    path = pathlib.Path(__file__).with_name("arrays") / "recipe.torch.npz"
    np.savez(path, steps=STEPS, warmups=WARMUPS, rates=rates, groups=json.dumps(groups()), **trajectory())


if __name__ == "__main__":
    main()
