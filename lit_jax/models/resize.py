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

    A patch resized to the new size is embedded as the original one was: exactly where patches grow, and with the
    least squared error where they shrink. Patches are resized bicubically with antialiasing, which is timm's
    default; FlexiViT itself resizes them bilinearly.

    Raises:
        ValueError: if channels differ.
    """
    if kernel.ndim != 4 or kernel.shape[2:] != shape[2:]:
        raise ValueError(f"found a patch embedding {kernel.shape}, expected a form of {shape}")
    # Resizing goes along one axis and then the other, and so does its pseudo-inverse.
    rows, columns = (
        np.linalg.pinv(np.asarray(jax.image.resize(np.eye(old), (new, old), "bicubic", antialias=True), np.float64))
        for old, new in zip(kernel.shape[:2], shape[:2], strict=True)
    )
    return np.einsum("yY,xX,yxcd->YXcd", rows, columns, kernel.astype(np.float64)).astype(np.float32)


def resize_table(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A table of biases by relative position, `[(2w - 1)^2, H]`, for windows of another size.

    Bicubically as the original Swin does it, which is PyTorch's way: no antialiasing, a = -0.75, edges repeated.

    Args:
        table: one row for each offset, rows of a square.
        shape: the shape wanted, `[(2W - 1)^2, H]`.

    Raises:
        ValueError: if one of the two is no square, or numbers of heads differ.
    """
    sides = [round(rows**0.5) for rows in (table.shape[0], shape[0])]
    if table.ndim != 2 or table.shape[1] != shape[1] or [s * s for s in sides] != [table.shape[0], shape[0]]:
        raise ValueError(f"found a table of relative positions {table.shape}, expected a form of {shape}")
    matrix = _cubic(*sides)
    square = table.reshape(sides[0], sides[0], -1).astype(np.float64)
    return np.einsum("Yy,Xx,yxh->YXh", matrix, matrix, square).reshape(shape).astype(np.float32)


def _cubic(size: int, new: int, a: float = -0.75) -> np.ndarray:
    """`[new, size]`: weights of cubic convolution with repeated edges, at the centres of pixels."""
    centres = (np.arange(new) + 0.5) * size / new - 0.5
    matrix = np.zeros((new, size))
    for tap in range(-1, 3):
        place = np.floor(centres).astype(int) + tap
        t = np.abs(centres - place)
        near = ((a + 2) * t - (a + 3)) * t * t + 1
        far = ((t - 5) * t + 8) * t * a - 4 * a
        np.add.at(matrix, (np.arange(new), np.clip(place, 0, size - 1)), np.where(t <= 1, near, far))
    return matrix
