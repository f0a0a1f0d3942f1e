r"""Memory and time of the contrastive losses on one device, by batch size: ours, the full matrix, open_clip's.

    python -m benchmarks.loss_scaling

A call is the value and the gradients with respect to images, texts and scale (sigmoid: bias as well), of embeddings
`[B, 512]` of unit norm in float32. Sides:

* ours: softmax, sigmoid, and softmax where 10,000 distinct captions are all there are;
* the full matrix in JAX, as a paper's pseudo-code has it;
* open_clip's ``ClipLoss`` and ``SigLipLoss``, the latter also in chunks where the installed version has them.

Each size, side and round is a process of its own. Rounds go through all sides, so that what else the machine does
hits all alike. Memory is told twice: what the compiler sets aside for intermediate results (JAX only; it needs no run,
so every size has it), and by how much memory grew in the first call, the gradients included. Sizes that would not
fit into memory or would take longer than ``--seconds`` a call are left out, and the JSON says why.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import inspect
import json
import math
import pathlib
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import machine
from lit_jax.errors import UserError, user_errors_in_one_line

WIDTH, CAPTIONS, SCALE, BIAS = 512, 10_000, 20.0, -10.0
SIDES = {
    "ours_softmax": "lit_jax softmax",
    "ours_softmax_captions": "lit_jax softmax, 10,000 captions",
    "naive_softmax": "full matrix in JAX, softmax",
    "open_clip_softmax": "open_clip ClipLoss",
    "ours_sigmoid": "lit_jax sigmoid",
    "naive_sigmoid": "full matrix in JAX, sigmoid",
    "open_clip_sigmoid": "open_clip SigLipLoss",
    "open_clip_sigmoid_chunks": "open_clip SigLipLoss in chunks",
}
PEERS = {
    "ours_softmax": ("naive_softmax", "open_clip_softmax"),
    "ours_softmax_captions": ("ours_softmax", "naive_softmax", "open_clip_softmax"),
    "ours_sigmoid": ("naive_sigmoid", "open_clip_sigmoid", "open_clip_sigmoid_chunks"),
}
SIZES = tuple(2**power for power in range(12, 19))
SHARE = 0.85  # of the memory that is free which a call may be expected to need
MATRICES = 6  # B x B in float32: what a full matrix may cost a framework that fuses nothing

Found = dict[str, dict[int, dict[str, Any]]]


def texts_of(side: str, batch: int) -> int:
    """U, the distinct texts of a batch."""
    return min(batch, CAPTIONS) if side.endswith("captions") else batch


def inputs(side: str, batch: int) -> dict[str, np.ndarray]:
    """The same numbers for every side: images `[B, D]`, texts `[U, D]` and, if texts are fewer, captions `[B]`."""
    rng = np.random.default_rng(0)
    made = {}
    for name, rows in (("image", batch), ("text", texts_of(side, batch))):
        made[name] = rng.standard_normal((rows, WIDTH), np.float32)
        made[name] /= np.linalg.norm(made[name], axis=1, keepdims=True)
    if side.endswith("captions"):
        made["caption"] = (rng.permutation(batch) % len(made["text"])).astype(np.int32)
    return made


# The sides in JAX ----------------------------------------------------------------------------------------------------


def jax_loss(side: str) -> Callable[..., Any]:
    """The loss of (image, text, scale, bias, caption); those that a side has no use for are ignored."""
    import jax
    import jax.numpy as jnp

    from lit_jax.training import losses

    def naive_softmax(image: Any, text: Any, scale: Any, *_: Any) -> Any:
        logits = scale * image @ text.T
        own = jnp.diagonal(logits)
        return jnp.mean(jax.nn.logsumexp(logits, 1) + jax.nn.logsumexp(logits, 0) - 2 * own) / 2

    def naive_sigmoid(image: Any, text: Any, scale: Any, bias: Any, *_: Any) -> Any:
        logits = scale * image @ text.T + bias
        return -jnp.sum(jax.nn.log_sigmoid((2 * jnp.eye(len(image)) - 1) * logits)) / len(image)

    def softmax(image: Any, text: Any, scale: Any, _: Any, caption: Any = None) -> Any:
        return losses.softmax_contrastive(image, text, scale, caption=caption)

    by_side: dict[str, Callable[..., Any]] = {
        "naive_softmax": naive_softmax,
        "naive_sigmoid": naive_sigmoid,
        "ours_softmax": softmax,
        "ours_softmax_captions": softmax,
        "ours_sigmoid": losses.sigmoid_contrastive,
    }
    return by_side[side]


def compiled(side: str, batch: int) -> Any:
    """The compiled value and gradients; nothing runs and nothing is allocated."""
    import jax
    import jax.numpy as jnp

    # A GPU would round the inputs of products to 10 bits, which torch does not; both are to do the same.
    jax.config.update("jax_default_matmul_precision", "float32")
    rows = [jax.ShapeDtypeStruct((n, WIDTH), jnp.float32) for n in (batch, texts_of(side, batch))]
    number = jax.ShapeDtypeStruct((), jnp.float32)
    caption = [jax.ShapeDtypeStruct((batch,), jnp.int32)] if side.endswith("captions") else []
    wanted = (0, 1, 2, 3) if side.endswith("sigmoid") else (0, 1, 2)
    return jax.jit(jax.value_and_grad(jax_loss(side), wanted)).lower(*rows, number, number, *caption).compile()


def analysed(side: str, sizes: Sequence[int]) -> dict[str, Any]:
    """What the compiler sets aside for intermediate results, by batch size: bytes, or why it cannot tell."""
    import jax

    temporary: dict[int, Any] = {}
    for batch in sizes:
        try:
            temporary[batch] = compiled(side, batch).memory_analysis().temp_size_in_bytes
        except RuntimeError as error:  # a GPU's compiler may try products out, which then must fit
            temporary[batch] = _first_line(error)
    return {"platform": jax.default_backend(), "temporary": temporary}


def jax_call(side: str, batch: int) -> tuple[Callable[[], tuple[float, float]], Callable[[], int], str]:
    """A call, what it answers with, and where it runs."""
    import jax
    import jax.numpy as jnp

    run = compiled(side, batch)
    made = inputs(side, batch)
    arrays = [made["image"], made["text"], np.float32(SCALE), np.float32(BIAS)]
    arrays += [made["caption"]] if "caption" in made else []
    put = [jax.block_until_ready(jnp.array(x)) for x in arrays]
    device = jax.devices()[0]

    def call() -> tuple[float, float]:
        loss, gradients = jax.block_until_ready(run(*put))
        return float(loss), float(jnp.abs(gradients[0][0]).sum())

    def in_use(peak: bool) -> int:
        # This peak cannot be lowered: if compiling needed more than the call, growth is told too large.
        return int((device.memory_stats() or {})["peak_bytes_in_use" if peak else "bytes_in_use"])

    platform = jax.default_backend()
    return call, _memory(platform, in_use), platform


# The sides in torch --------------------------------------------------------------------------------------------------


def torch_call(side: str, batch: int, chunk: int) -> tuple[Callable[[], tuple[float, float]], Callable[[], int], str]:
    """As `jax_call`, of open_clip's losses."""
    machine.open_clip()
    import torch
    from open_clip.loss import ClipLoss, SigLipLoss

    platform = "gpu" if torch.cuda.is_available() else "cpu"
    device = "cuda" if platform == "gpu" else "cpu"
    made = inputs(side, batch)
    leaves = [torch.from_numpy(made[name]).to(device).requires_grad_() for name in ("image", "text")]
    numbers = (SCALE,) if side.endswith("softmax") else (SCALE, BIAS)
    leaves += [torch.tensor(number, device=device, requires_grad=True) for number in numbers]
    # The labels are kept between calls, as open_clip's own training does.
    if side.endswith("softmax"):
        loss_of = ClipLoss(cache_labels=True)
    else:
        chunks = {"chunk_size": chunk} if side.endswith("chunks") else {}
        loss_of = SigLipLoss(cache_labels=True, **chunks)

    def call() -> tuple[float, float]:
        loss = loss_of(*leaves)
        gradients = torch.autograd.grad(loss, leaves)
        return float(loss.detach()), float(gradients[0][0].abs().sum())  # both wait for the device

    def in_use(peak: bool) -> int:
        if not peak:
            torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated())

    return call, _memory(platform, in_use), platform


def lacks_chunks() -> str:
    """Why the side in chunks cannot run, if so."""
    machine.open_clip()
    from open_clip.loss import SigLipLoss

    has = "chunk_size" in inspect.signature(SigLipLoss).parameters
    return "" if has else "SigLipLoss of the open_clip installed here takes no chunk_size"


# One side, in its own process ----------------------------------------------------------------------------------------


def _memory(platform: str, on_device: Callable[[bool], int]) -> Callable[[], int]:
    """A function that starts to watch memory when first called, and then tells by how many bytes it has grown."""
    marks: list[int] = []

    def watch() -> int:
        if platform != "cpu":
            marks.append(on_device(bool(marks)))
        else:
            marks.append(_resident_peak() if marks else _resident())
        return marks[-1] - marks[0]

    return watch


def _resident() -> int:
    """Bytes resident now. The peak is lowered to it where the system can, so that the past does not hide growth."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)  # else what was freed before could be used again unseen
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return _resident_peak()


def _resident_peak() -> int:
    try:
        return _status("VmHWM")  # not getrusage's, which begins with what the parent process had
    except OSError:
        return machine.peak_bytes()


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", pathlib.Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"no {name} in /proc/self/status")
    return int(found[1]) * 1024


def measured(side: str, batch: int, *, repeats: int, spend: float, chunk: int) -> dict[str, Any]:
    """Growth of memory in the first call, then the times of up to `repeats` more: fewer after `spend` s, but one."""
    try:
        # Compiling, importing and the inputs are behind us when memory is first looked at.
        call, grown, platform = torch_call(side, batch, chunk) if side.startswith("open") else jax_call(side, batch)
        grown()
        with machine.Clock() as first:
            loss, gradient = call()
        growth = grown()
        clocks: list[machine.Clock] = []
        while len(clocks) < repeats and (not clocks or sum(clock.wall for clock in clocks) < spend):
            with machine.Clock() as clock:
                call()
            clocks.append(clock)
    except (RuntimeError, MemoryError) as error:
        return {"failed": _first_line(error)}
    return {
        "platform": platform, "first_s": first.wall, "wall_s": [clock.wall for clock in clocks],
        "cpu_s": [clock.cpu for clock in clocks], "grown_bytes": growth, "loss": loss, "gradient": gradient,
    }  # fmt: skip


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0][:300]


# All sides -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Plan:
    """What is known before a size is measured, and so whether it should be.

    Attributes:
        seconds: the longest that a call may be expected to take.
        analysis: of each side in JAX, as `analysed` returns it.
        found: what was measured so far.
    """

    seconds: float
    analysis: dict[str, dict[str, Any]]
    found: Found

    def reason_to_skip(self, side: str, batch: int) -> str:
        """Why a size is left out, or "" if it is not."""
        before = [(n, one) for n, one in self.found[side].items() if n < batch]
        failed = next((n for n, one in before if "failed" in one), 0)
        if failed:
            return f"failed at batch {failed}"
        for _, one in before:
            if one.get("at_any_size"):
                return str(one["skipped"])
        ran = [(n, one) for n, one in before if "best_s" in one]
        growth = _work(side, batch) / _work(side, ran[-1][0]) if ran else math.nan
        if ran and ran[-1][1]["best_s"] * growth > self.seconds:
            return f"expected {ran[-1][1]['best_s'] * growth:.0f} s a call, more than {self.seconds:.0f}"
        analysed_on = next((one["platform"] for one in self.analysis.values() if "platform" in one), "cpu")
        platform = ran[-1][1]["platform"] if ran else analysed_on
        expected = self._bytes(side, batch, ran[-1][1]["grown_bytes"] * growth if ran else math.nan)
        available = _available() * SHARE
        if platform == "cpu" and expected > available:
            return f"expected {expected / 2**30:.1f} GiB, more than the {available / 2**30:.1f} that are free"
        return ""

    def _bytes(self, side: str, batch: int, scaled: float) -> float:
        rows = 4 * 4 * WIDTH * batch  # images, texts and the gradients of both
        temporary = self.analysis.get(side, {}).get("temporary", {}).get(str(batch))
        if isinstance(temporary, int):
            return temporary + rows
        # What a small batch needs is mostly other than matrices, so scaled up it is too much.
        guess = 4.0 * MATRICES * batch**2
        return rows + (guess if math.isnan(scaled) else min(guess, scaled))


def _work(side: str, batch: int) -> int:
    return batch * texts_of(side, batch)


def _available() -> float:
    try:
        found = re.search(r"MemAvailable:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())
    except OSError:
        return math.inf
    return int(found[1]) * 1024 if found else math.inf


def _rounds(plan: Plan, batch: int, sides: Sequence[str], parsed: argparse.Namespace) -> Iterator[tuple[str, dict]]:
    """Sides of one size, all in turn and then again; each result tells a side's rounds so far."""
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number in range(parsed.rounds):
        slowest = max((min(run["wall_s"]) for past in runs.values() for run in past if "wall_s" in run), default=0.0)
        if slowest > parsed.spend:
            return  # calls so long average over most of what else goes on
        for side in sides:
            # Skipped or failed in the first round: so it would be again.
            if number and not all("wall_s" in run for run in runs[side]):
                continue
            reason = "" if number else plan.reason_to_skip(side, batch)
            run = {"skipped": reason} if reason else _run(side, batch, parsed)
            runs[side].append(run)
            yield side, _merged(runs[side])


def _run(side: str, batch: int, parsed: argparse.Namespace) -> dict[str, Any]:
    options = [f"--{name}={getattr(parsed, name)}" for name in ("repeats", "spend", "chunk")]
    return machine.side("benchmarks.loss_scaling", f"--side={side}", f"--sizes={batch}", *options)


def _merged(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The rounds of one side at one size as one result."""
    bad = next((run for run in runs if "wall_s" not in run), None)
    if bad is not None:
        return bad
    wall, cpu = ([value for run in runs for value in run[name]] for name in ("wall_s", "cpu_s"))
    return {
        **runs[0], "wall_s": wall, "cpu_s": cpu, "best_s": min(wall), "median_s": statistics.median(wall),
        "least_cpu_s": min(cpu), "grown_bytes": max(run["grown_bytes"] for run in runs),
    }  # fmt: skip


def ratios(found: Found, analysis: dict[str, dict[str, Any]], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Ours by each peer where both are known: best time, least CPU time, growth of memory, the compiler's plan."""
    made = []
    for batch in sizes:
        for side, peers in PEERS.items():
            for peer in peers:
                one: dict[str, Any] = {"batch": batch, "side": side, "peer": peer}
                both = [found.get(name, {}).get(batch, {}) for name in (side, peer)]
                for name, key in (("time", "best_s"), ("cpu", "least_cpu_s"), ("memory_growth", "grown_bytes")):
                    if all(result.get(key) for result in both):
                        one[name] = both[0][key] / both[1][key]
                temporary = [analysis.get(name, {}).get("temporary", {}).get(str(batch)) for name in (side, peer)]
                if all(isinstance(value, int) and value for value in temporary):
                    one["compiler_temporary"] = temporary[0] / temporary[1]
                made += [one] if len(one) > 3 else []
    return made


def disagreement(found: Found, batch: int) -> dict[str, float]:
    """The largest relative difference between sides that compute the same: in the loss, and in a gradient."""
    worst = {}
    for kind in ("softmax", "sigmoid"):
        same = [found[side].get(batch, {}) for side in found if kind in side and "captions" not in side]
        for name in ("loss", "gradient"):
            values = [one[name] for one in same if name in one]
            if len(values) > 1:
                worst[f"{kind}_{name}"] = (max(values) - min(values)) / max(map(abs, values))
    return worst


def main(argv: Sequence[str] | None = None) -> None:
    """The command: every side at every size, the table and the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loss_scaling", description=(__doc__ or "").split("\n")[0]
    )
    add = parser.add_argument
    add("--sizes", default=",".join(map(str, SIZES)), help="batch sizes")
    add("--sides", default=",".join(SIDES), help="which to run, in this order")
    add("--repeats", type=int, default=3, help="timed calls a process")
    add("--rounds", type=int, default=2, help="processes of each side at each size")
    add("--seconds", type=float, default=60.0, help="leave out calls expected to take longer")
    add(
        "--spend",
        type=float,
        default=30.0,
        help="no further call in a process after so many seconds, and no round after a longer call",
    )
    add("--chunk", type=int, default=512, help="rows of a chunk of open_clip's SigLipLoss, as its authors use it")
    add("--side", default="", help=argparse.SUPPRESS)
    add("--analyse", action="store_true", help=argparse.SUPPRESS)
    add("--out", default="")
    parsed = parser.parse_args(argv)
    sizes = sorted(int(size) for size in parsed.sizes.split(","))
    with user_errors_in_one_line():
        if parsed.side:
            print(json.dumps(_one_side(parsed, sizes)))
            return
        sides = parsed.sides.split(",")
        if not set(sides) <= set(SIDES):
            raise UserError(f"--sides: found {parsed.sides}, expected some of {', '.join(SIDES)}")
        _all_sides(parsed, sides, sizes)


def _one_side(parsed: argparse.Namespace, sizes: Sequence[int]) -> dict[str, Any]:
    if parsed.analyse:
        return analysed(parsed.side, sizes)
    if parsed.side.endswith("chunks") and (lacking := lacks_chunks()):
        return {"skipped": lacking, "at_any_size": True}
    return measured(parsed.side, sizes[0], repeats=parsed.repeats, spend=parsed.spend, chunk=parsed.chunk)


def _all_sides(parsed: argparse.Namespace, sides: Sequence[str], sizes: Sequence[int]) -> None:
    analysis = {
        side: machine.side("benchmarks.loss_scaling", f"--side={side}", f"--sizes={parsed.sizes}", "--analyse")
        for side in sides
        if not side.startswith("open_clip")
    }
    found: Found = {side: {} for side in sides}
    plan = Plan(parsed.seconds, analysis, found)
    for batch in sizes:
        for side, result in _rounds(plan, batch, sides, parsed):
            found[side][batch] = result
            told = (
                result.get("skipped")
                or result.get("failed")
                or f"best of {len(result['wall_s'])}: {result['best_s']:.3g} s"
            )
            print(f"{batch} {SIDES[side]}: {told}", flush=True)
    compared = ratios(found, analysis, sizes)
    print(_tables(found, analysis, compared))
    options = {name: getattr(parsed, name) for name in ("repeats", "rounds", "seconds", "spend", "chunk")}
    for side, result in found.items():
        for batch, one in result.items():
            one["compiler_temporary_bytes"] = analysis.get(side, {}).get("temporary", {}).get(str(batch))
    what = {"width": WIDTH, "dtype": "float32", "captions": CAPTIONS, **options}
    differences = {batch: disagreement(found, batch) for batch in sizes}
    machine.write(
        "loss_scaling", {**what, "sides": found, "ratios": compared, "relative_differences": differences}, parsed.out
    )


def _tables(found: Found, analysis: dict[str, dict[str, Any]], compared: Sequence[dict[str, Any]]) -> str:
    rows = []
    for side, result in found.items():
        for batch, one in result.items():
            temporary = analysis.get(side, {}).get("temporary", {}).get(str(batch))
            compiler = _mib(temporary) if isinstance(temporary, int) else ""
            if "best_s" in one:
                shown = [f"{one['best_s']:.3f}", f"{one['median_s']:.3f}", f"{one['least_cpu_s']:.2f}"]
                rows.append([SIDES[side], str(batch), *shown, _mib(one["grown_bytes"]), compiler])
            else:
                rows.append([SIDES[side], str(batch), "", "", "", "", compiler])
    headings = ["side", "batch", "best s", "median s", "CPU s", "growth MiB", "compiler MiB"]
    names = ("time", "cpu", "memory_growth", "compiler_temporary")
    pairs = [
        [f"{SIDES[one['side']]} / {SIDES[one['peer']]}", str(one["batch"]), *(_ratio(one.get(name)) for name in names)]
        for one in compared
    ]
    second = ["ours / peer", "batch", "time", "CPU", "growth", "compiler"]
    return machine.table(headings, rows) + "\n" + machine.table(second, pairs)


def _mib(number: float) -> str:
    return f"{number / 2**20:,.0f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
