r"""CUB-100 from given embeddings: all 100 species in training, and five times twenty of them held out.

    python -m benchmarks.cub_holdouts --embeddings CUB/inat_mobilenetv2.npz \
        --ids CUB/splits.csv --classes CUB/classes.csv
    python -m benchmarks.cub_holdouts --store data/cub_all_store --ids CUB/splits.csv --classes CUB/classes.csv \
        --out benchmarks/results/cub_holdouts_efficientnet.json

The second line takes what `lit_jax.embed` wrote, of any tower, in place of embeddings from elsewhere.

Runs ``configs/cub_embeddings.py`` on the official split; then with the twenty species that seeds 0 to 4 draw held out
of training, each told apart among themselves by their names alone, with the seed of the run equal to that of the draw.
Beside it stands what no text tower can be expected to beat, a ridge regression on the same embeddings with labels of
every species, and guessing. A tower may have seen photos of these birds elsewhere: held out means held out of text
training.
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import machine
from data_prep import embeddings
from lit_jax import config as options
from lit_jax.data import embedding_store
from lit_jax.errors import user_errors_in_one_line
from lit_jax.main import train

HELDOUT, DRAWS = 20, 5
PENALTIES = 10.0 ** np.arange(-2, 5)


def imported(parsed: argparse.Namespace, folder: pathlib.Path, *more: str) -> pathlib.Path:
    """The store of one split."""
    if not embedding_store.is_store(folder):
        shared = [f"--{name}={getattr(parsed, name)}" for name in ("embeddings", "ids", "classes")]
        embeddings.main([*shared, f"--out={folder}", *more])
    return folder


def arrays_of(folder: str, workdir: pathlib.Path) -> str:
    """Features and photo names of every split of a store, view 0, in the file that the importer reads."""
    made, path = embedding_store.open_store(folder), workdir / "features.npz"
    workdir.mkdir(parents=True, exist_ok=True)
    values = [embedding_store.Rows(made, split).whole()[:, 0] for split in made.splits]
    names = [name for split in made.splits for name in embedding_store.image_ids(made, split)]
    np.savez(path, emb=np.concatenate(values), files=np.array(names))
    return str(path)


def trained(name: str, folder: pathlib.Path, workdir: pathlib.Path, seed: int) -> dict[str, Any]:
    """Results and times of a run."""
    overrides = {"data.store": str(folder), "seed": str(seed)}
    config, _ = options.load(machine.ROOT / "configs" / "cub_embeddings.py", overrides)
    with machine.Clock() as clock:
        results = train(config, workdir / name)
    return {**results, "wall_s": clock.wall, "cpu_s": clock.cpu}


def ridge(folder: pathlib.Path) -> dict[str, float]:
    """Top-1 of a ridge regression onto one-hot labels; its penalty is chosen on a fifth of the training photos."""
    made = embedding_store.open_store(folder)
    train, test = (embedding_store.Rows(made, split) for split in ("train", "validation"))
    x, y = train.whole()[:, 0].astype(np.float64), train.class_ids
    chosen = np.random.default_rng(0).permutation(len(y)) < len(y) // 5
    scores = {p: _ridge_top1(x[~chosen], y[~chosen], x[chosen], y[chosen], p) for p in PENALTIES}
    best = max(scores, key=lambda p: scores[p])
    return {"top1": _ridge_top1(x, y, test.whole()[:, 0].astype(np.float64), test.class_ids, best), "penalty": best}


def _ridge_top1(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, penalty: float) -> float:
    classes, index = np.unique(y, return_inverse=True)
    mean = x.mean(0)
    x = x - mean
    onehot = np.eye(len(classes))[index]
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (onehot - onehot.mean(0)))
    found = (x_test - mean) @ weights + onehot.mean(0)
    return float(np.mean(classes[found.argmax(1)] == y_test))


def main(argv: Sequence[str] | None = None) -> None:
    """The command: runs all six, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cub_holdouts", description=(__doc__ or "").split("\n")[0]
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--embeddings", default="", help="file of features and photo names")
    source.add_argument("--store", default="", help="an embedding store of all photos instead")
    for name in ("ids", "classes"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--workdir", default="runs/cub_holdouts")
    parser.add_argument("--out", default="")
    parsed = parser.parse_args(argv)
    workdir = pathlib.Path(parsed.workdir)
    with user_errors_in_one_line():
        if parsed.store:
            parsed.embeddings = arrays_of(parsed.store, workdir)
        every = imported(parsed, workdir / "store")
        whole = trained("official_split", every, workdir, 0)
        draws = []
        for seed in range(DRAWS):
            folder = imported(parsed, workdir / f"store_{seed}", f"--heldout={HELDOUT}", f"--seed={seed}")
            draws.append({"seed": seed, **trained(f"heldout_{seed}", folder, workdir, seed)})
        probe = ridge(every)
    spread: dict[str, dict[str, Any]] = {
        task: {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)), "values": values}
        for task in ("seen", "heldout", "heldout_among_all")
        for values in [[draw[task]["top1"] for draw in draws]]
    }
    rows = [
        ["official split, 100 species", f"{100 * whole['seen']['top1']:.2f} %", "", "", f"{whole['wall_s']:.0f}"],
        *(
            [f"20 held out, seed {d['seed']}", *(f"{100 * d[t]['top1']:.2f} %" for t in spread), f"{d['wall_s']:.0f}"]
            for d in draws
        ),
        ["mean of the five", *(f"{100 * one['mean']:.1f} ± {100 * one['sd']:.1f} %" for one in spread.values()), ""],
        ["ridge regression, labels of all", f"{100 * probe['top1']:.2f} %", "", "", ""],
    ]
    print(machine.table(["run", "seen", "held out, of 20", "held out, among 100", "s"], rows))
    tower = embedding_store.open_store(parsed.store).tower if parsed.store else {}
    content = {
        "tower": tower,
        "official_split": whole,
        "draws": draws,
        "spread": spread,
        "ridge": probe,
        "heldout": HELDOUT,
    }
    machine.write("cub_holdouts", content, parsed.out)


if __name__ == "__main__":
    main()
