"""Writes what people have on disk: records, a store, runs and a model folder, all tiny.

What ``written.tar.xz`` beside this file holds was written by it with version 0.1.0 (commit 99b2e26), before the package was divided into
folders. It is not made anew when the code changes: `tests/test_written.py` shows that today's code still opens it.

    cd EMPTY_FOLDER && python .../write.py && tar -cJf .../written.tar.xz *
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
from PIL import Image

SPECIES = [("Apis mellifera", "Insecta"), ("Bombus terrestris", "Insecta"), ("Parus major", "Aves"),
           ("Corvus corax", "Aves"), ("Vulpes vulpes", "Mammalia"), ("Lynx lynx", "Mammalia")]  # fmt: skip
CONFIG = """
from lit_jax.config import defaults

def get_config():
    config = defaults()
    config.data.records, config.image.weights = "records", "tower.npz"
    config.image.size, config.image.patch = 16, 8
    config.image.width, config.image.depth, config.image.heads = 8, 1, 2
    config.text.context, config.text.width, config.text.depth, config.text.heads = 24, 8, 1, 2
    config.model.embed_dim = 8
    config.optimizer.lr, config.optimizer.warmup_steps = 0.01, 2
    config.train.batch_size, config.train.epochs = 4, 4.0
    config.evaluation.batch_size, config.log.every_steps = 4, 1
    config.checkpoint.every_epochs, config.log.tensorboard = 0.0, False
    return config
"""


def command(*arguments):
    """Runs a command of the package."""
    subprocess.run([sys.executable, "-m", *arguments], check=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})


def stopped_run():
    """A run that SIGTERM ends in its middle."""
    run = [sys.executable, "-m", "lit_jax.main", "--config=config.py", "--workdir=runs/stopped", "--config.train.epochs=20",
           "--config.evaluation.every_epochs=0"]  # fmt: skip
    with subprocess.Popen(run, env={**os.environ, "JAX_PLATFORMS": "cpu"}) as process:
        log = pathlib.Path("runs/stopped/metrics.jsonl")
        while not (log.exists() and log.read_text().count("\n") > 8):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 143
    shutil.copytree("runs/stopped", "runs/finished")  # what the same code makes of it in the end
    command("lit_jax.main", *run[3:4], "--workdir=runs/finished", *run[5:])
    shutil.rmtree("runs/finished/checkpoints")


def main():
    """Writes everything into the working directory."""
    draw = np.random.default_rng(0)
    pathlib.Path("classes.csv").write_text("name,class\n" + "".join(f"{name},{group}\n" for name, group in SPECIES))
    for number, (name, _) in enumerate(SPECIES):
        folder = pathlib.Path("photos") / name
        folder.mkdir(parents=True)
        colour = draw.integers(0, 255, 3)
        for photo in range(5):
            pixels = np.clip(colour + draw.normal(0, 30, (20 + number, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{photo}.jpg")
    pathlib.Path("config.py").write_text(CONFIG)
    command("data_prep.convert", "--images=photos", "--classes=classes.csv", "--heldout=2", "--validation-fraction=0.2",
            "--out=records", "--shards=2", "--vocab-size=300", "--template=a photo of {name}, one of the {class}")  # fmt: skip
    width, shapes = 8, {
        "cls": (1, 1, 8), "embedding/kernel": (8, 8, 3, 8), "embedding/bias": (8,),
        "Transformer/posembed_input/pos_embedding": (1, 5, 8),
        "Transformer/encoder_norm/scale": (8,), "Transformer/encoder_norm/bias": (8,),
    }  # fmt: skip
    block, attention = "Transformer/encoderblock_0/", "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/"
    for norm in ("LayerNorm_0", "LayerNorm_2"):
        shapes |= {f"{block}{norm}/scale": (8,), f"{block}{norm}/bias": (8,)}
    for part in ("query", "key", "value"):
        shapes |= {f"{attention}{part}/kernel": (8, 2, 4), f"{attention}{part}/bias": (2, 4)}
    shapes |= {f"{attention}out/kernel": (2, 4, 8), f"{attention}out/bias": (8,)}
    for layer, (rows, columns) in {"Dense_0": (8, 4 * width), "Dense_1": (4 * width, 8)}.items():
        shapes |= {f"{block}MlpBlock_3/{layer}/kernel": (rows, columns), f"{block}MlpBlock_3/{layer}/bias": (columns,)}
    np.savez("tower.npz", **{name: draw.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()})
    command("lit_jax.main", "--config=config.py", "--workdir=runs/records")
    command("lit_jax.embed", "--config=config.py", "--shard-rows=8")
    command("lit_jax.main", "--config=config.py", "--workdir=runs/store", "--config.input=store")
    stopped_run()
    command("lit_jax.export", "--checkpoint=runs/records", "--out=model")
    for source in ("runs/records", "runs/store", "runs/stopped", "model"):
        command("lit_jax.evaluate", f"--checkpoint={source}", "--split=heldout", "--classes=classes.csv",
                f"--out=evaluation-{source.replace('/', '-')}.json", "--no-page")  # fmt: skip
    step = json.loads(pathlib.Path("evaluation-runs-stopped.json").read_text())["step"]
    command("lit_jax.plan", "--config=config.py", "--json=plan.json", "--tflops=1", "--memory=1")
    print(f"stopped after step {step}")
    shutil.rmtree("photos")
    for picture in pathlib.Path("runs").glob("*/curves.png"):
        picture.unlink()


if __name__ == "__main__":
    main()
