"""Parameters that depend on the size of the picture or of a patch, made fit for another (NumPy and JAX, on the CPU)."""

import jax
import numpy as np


def resize_positions(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Position embeddings `[1, N, D]` for another square grid of patches: bicubic with antialiasing, as timm does.

    Args:
        value: `[1, t + g*g, D]`; t positions of tokens, 0, 1 or 2, come first.
        shape: the shape wanted, `[1, T + G*G, D]`. A token's position that the file lacks is zero (big_vision and
            timm's DINOv2 have added it to the token itself); one that is not wanted is left out.

    Raises:
        ValueError: if one of the two is not a square grid, or widths differ.
    """
    value = value.reshape(1, *value.shape[-2:])
    (tokens, grid), (wanted, new_grid) = _grid(value.shape[1]), _grid(shape[1])
    if value.shape[2] != shape[2] or grid is None or new_grid is None:
        raise ValueError(f"found position embeddings {value.shape}, expected a form of {shape}")
    first = np.zeros((1, wanted, shape[2]), np.float32)
    both = min(tokens, wanted)
    first[:, :both] = value[:, :both]
    square = value[:, tokens:].reshape(grid, grid, shape[2])
    if new_grid != grid:
        square = np.asarray(jax.image.resize(square, (new_grid, new_grid, shape[2]), "bicubic", antialias=True))
    return np.concatenate([first, square.reshape(1, new_grid * new_grid, shape[2])], 1)


def _grid(positions: int) -> tuple[int, int | None]:
    """Positions of tokens, and the side of the square of all others."""
    for tokens in (0, 1, 2):
        side = round(max(positions - tokens, 0) ** 0.5)
        if side * side == positions - tokens:
            return tokens, side
    return 0, None


def resize_patch(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A patch embedding `[p, p, 3, D]` for another patch size, by the pseudo-inverse of FlexiViT (arXiv 2212.08013).

    A patch resized bilinearly to the new size is embedded as the original one was: exactly where patches grow, and
    with the least squared error where they shrink.

    Raises:
        ValueError: if channels differ.
    """
    if kernel.ndim != 4 or kernel.shape[2:] != shape[2:]:
        raise ValueError(f"found a patch embedding {kernel.shape}, expected a form of {shape}")
    one = np.eye(kernel.shape[0] * kernel.shape[1], dtype=np.float32).reshape(-1, *kernel.shape[:2])
    resized = jax.vmap(lambda patch: jax.image.resize(patch, shape[:2], "bilinear", antialias=True))(one)
    matrix = np.asarray(resized, np.float64).reshape(len(one), -1).T  # [P*P, p*p]
    flat = np.linalg.pinv(matrix.T) @ kernel.reshape(len(one), -1).astype(np.float64)
    return flat.reshape(shape).astype(np.float32)
