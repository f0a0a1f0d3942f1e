"""What all scripts need of torch: filled models, and pictures in its layout."""

import os
import sys

import numpy as np
import torch

from tests.golden import common

if os.environ.get("PEERS"):  # a folder whose torchvision_cpu.py makes torchvision importable beside a CPU torch
    sys.path.insert(0, os.environ["PEERS"])
    import torchvision_cpu  # noqa: F401


def shapes_of(state):
    """Names and shapes of a state_dict, without the buffers that are no weights."""
    skip = ("num_batches_tracked", "relative_position_index", "relative_coords_table", "attn_mask", "position_ids")
    return {name: tuple(value.shape) for name, value in state.items() if not name.endswith(skip)}


def filled(model):
    """The model in evaluation mode with drawn weights, and their shapes by name."""
    state = model.state_dict()
    shapes = shapes_of(state)
    drawn = {name: torch.from_numpy(value) for name, value in common.arrays(shapes).items()}
    result = model.load_state_dict(drawn, strict=False)
    assert not result.unexpected_keys, result
    return model.eval(), shapes


def pixels(size, batch=1):
    """`common.pixels` as `[B, 3, size, size]`."""
    return torch.from_numpy(np.ascontiguousarray(common.pixels(size, batch).transpose(0, 3, 1, 2)))


def saved_names(model):
    """Names and shapes as `save_pretrained` writes them: transformers renames some on the way."""
    import tempfile

    from safetensors import safe_open

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with safe_open(f"{folder}/model.safetensors", "np") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return shapes


def filled_pretrained(cls, config):
    """A transformers model with weights drawn by the names of its files, and their shapes."""
    import tempfile

    from safetensors.numpy import save_file

    model = cls(config)
    shapes = saved_names(model)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        save_file(common.arrays(shapes), f"{folder}/model.safetensors", {"format": "pt"})
        model = cls.from_pretrained(folder)
    return model.eval(), shapes


def versions(*modules):
    """Names and versions of the packages that made an output."""
    return ", ".join(f"{module.__name__} {module.__version__}" for module in (torch, *modules))
