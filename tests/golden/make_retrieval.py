"""Retrieval as open_clip measures it: its published cases, drawn and judged by torch. Run with the peers' Python.

The shapes, seeds and scales are those of open_clip's test_retrieval_metrics; ranks are of one full sorted matrix.
"""

import pathlib

import numpy as np
import torch

CASES = {
    "uneven": (11, 7, 3.5),
    "default": (13, 5, 8.0),
    "list": (19, 8, 4.0),
    "half": (9, 5, 4.0),
    "one": (17, 9, 5.0),
}


def main() -> None:
    out = {}
    for name, (items, width, scale) in CASES.items():
        generator = torch.Generator().manual_seed(0)
        sides = [torch.nn.functional.normalize(torch.randn(items, width, generator=generator), dim=-1) for _ in "it"]
        if name == "half":
            sides = [side.half().float() for side in sides]
        out |= _judged(name, sides, scale)
    ones = torch.nn.functional.normalize(torch.ones(7, 4), dim=-1)
    out |= _judged("ties", [ones, ones], 1.0)
    np.savez(pathlib.Path(__file__).with_name("arrays") / "retrieval.open_clip.npz", **out)


def _judged(name: str, sides: list[torch.Tensor], scale: float) -> dict[str, np.ndarray]:
    logits = scale * sides[0] @ sides[1].T
    ranks = []
    for matrix in (logits, logits.T):
        order = torch.sort(matrix, descending=True, stable=True)[1]
        ranks.append(torch.where(order == torch.arange(len(order))[:, None])[1].numpy())
    return {
        f"{name}/{part}": np.asarray(value)
        for part, value in zip(("images", "texts", "image_to_text", "text_to_image"), (*sides, *ranks), strict=True)
    }


if __name__ == "__main__":
    main()
