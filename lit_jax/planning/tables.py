"""A plan as tables, for a person."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lit_jax.base import console
from lit_jax.planning import abstract_run, cluster
from lit_jax.planning.device_table import GIB


def shown(found: Mapping[str, Any]) -> str:
    """A plan as tables, for a person."""
    parts = [_about_parameters, _about_data, _about_store, _about_memory, _about_largest, _about_flops, _about_hours]
    if found["cluster"]:
        parts.append(_about_cluster)
    return "\n\n".join("\n".join(part(found)) for part in parts)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return console.text_table([title, *columns], rows)


def _about_parameters(found: Mapping[str, Any]) -> Iterator[str]:
    kinds = ("trainable", "frozen")
    counts = found["parameters"]
    rows = [[name, *(f"{part[kind]:,}" for kind in kinds)] for name, part in counts.items()]
    rows.append(["all", *(f"{sum(part[kind] for part in counts.values()):,}" for kind in kinds)])
    yield _table("parameters", kinds, rows)
    if found["input"] == "store" and "image tower" in counts:
        yield "  the image tower is not loaded: the store stands for it"


def _about_data(found: Mapping[str, Any]) -> Iterator[str]:
    data = found["data"]
    longest = f"longest {data['longest']} tokens" if data["longest"] else "of unknown length"
    rows = [
        ["photos to train on", f"{next(iter(data['photos'].values())):,}"],
        ["classes", f"{data['classes']:,}" if data["classes"] else "unknown"],
        [f"distinct captions, {longest}", f"{data['captions']:,}"],
        ["photos a step, on all devices", f"{data['batch']:,}"],
        [f"texts a step of {data['tokens']} tokens, on average, rounded up", f"{data['texts']:,}"],
        ["steps an epoch", f"{data['steps_per_epoch']:,.1f}"],
        [f"steps in {data['epochs']:g} epochs", f"{data['steps']:,}"],
    ]
    yield _table(f"data: {data['source']}", [""], rows)


def _about_store(found: Mapping[str, Any]) -> Iterator[str]:
    stored = found["store"]
    if stored is None:
        yield "no store: the image tower moves"
        return
    rows = [[f"{split}, {rows:,} rows of {stored['width']}"] for split, rows in stored["rows"].items()]
    for row, number in zip(rows, stored["rows"].values(), strict=True):
        row += [_size(number * stored["width"] * abstract_run.STORED_BYTES[kind]) for kind in stored["bytes"]]
    if len(rows) > 1:
        rows.append(["all", *map(_size, stored["bytes"].values())])
    yield _table("embedding store", list(stored["bytes"]), rows)
    fits = "fits" if stored["fits_on_device"] else "does not fit"
    yield (
        f"  its training split in {found['data']['dtype']}, {_size(stored['train_bytes'])}, {fits} into half of a "
        f"device's memory; trained from, it lies {'on each device' if stored['on_device'] else 'on disk, mapped'}"
    )


MEMORY_PARTS = {
    "parameters": "trainable parameters",
    "optimizer": "optimizer's state",
    "locked": "locked towers",
    "batch": "batch",
    "temporaries": "temporaries, gradients among them",
    "waiting": f"{abstract_run.AHEAD} batches that wait",
    "store": "store",
    "gathered": "texts gathered from devices not here",
    "total": "all",
}


def _about_memory(found: Mapping[str, Any]) -> Iterator[str]:
    memory, compiler = found["memory"], found["compiler"]
    rows = [[text, _size(memory[part])] for part, text in MEMORY_PARTS.items() if memory[part]]
    title = f"memory of each of {found['devices']} devices" if found["devices"] > 1 else "memory of the device"
    yield _table(f"{title}, input {found['input']}, {found['precision']}", [""], rows)
    yield f"  gradients, which the compiler counts among the temporaries: {_size(memory['gradients'])}"
    kind = f"{compiler['platform']} ({compiler['device']})"
    yield f"  planned by XLA's compiler for {kind}" + (
        "; one for a GPU plans temporaries differently: ask there for its own figure"
        if compiler["platform"] == "cpu"
        else ""
    )
    if compiler["platform"] == "cpu" and found["precision"] == "bfloat16":
        yield "  a CPU computes bfloat16 in float32: expect about half of the temporaries on a GPU"


def _about_largest(found: Mapping[str, Any]) -> Iterator[str]:
    device, largest = found["device"], found["largest_batch"]
    yield f"device {device['name']}: {_size(device['memory'])} ({device['memory_is']})"
    yield f"  the config's batch {'fits' if found['memory']['fits'] else 'does not fit'}"
    if not largest["batch"]:
        sizes = f"of {largest['unit']}" if largest["is_certain"] else f"of {min(largest['memory'], default=0):,}"
        yield f"  not even a batch {sizes} fits"
        return
    why = "at least" if not largest["is_certain"] else "all photos at once," if _is_most(largest) else "exactly"
    bytes_there = _size(largest["memory"][largest["batch"]])
    yield (
        f"  largest batch over {found['devices']} of it: {why} {largest['batch']:,}, {bytes_there} on each "
        f"({len(largest['memory'])} sizes compiled)"
    )


def _is_most(largest: Mapping[str, Any]) -> bool:
    return bool(largest["batch"] == largest["most"])


def _about_flops(found: Mapping[str, Any]) -> Iterator[str]:
    arithmetic, steps = found["flops"], found["data"]["steps"]
    inputs = list(arithmetic["step"])
    names = list(next(iter(arithmetic["step"].values())))
    rows = [
        [f"a step: {name}" if name != "step" else "a step", *(_flops(arithmetic["step"][i][name]) for i in inputs)]
        for name in names
        if any(arithmetic["step"][i][name] for i in inputs)
    ]
    whole = arithmetic["run"]
    rows.append([f"{steps:,} steps", *(_flops(whole[i]) for i in inputs)])
    if "embedding" in whole:
        rows.append(["embedding all photos once", "0", _flops(whole["embedding"])])
        rows.append(["the whole run", _flops(whole["records"]), _flops(whole["store"] + whole["embedding"])])
    yield _table("arithmetic of matrix products, FLOP", [f"input {i}" for i in inputs], rows)
    if arithmetic["saved"] is not None:
        yield f"  a store saves {100 * arithmetic['saved']:.1f} % of the arithmetic, its making counted in"


def _about_hours(found: Mapping[str, Any]) -> Iterator[str]:
    hours, device = found["hours"], found["device"]
    names = {"records": "training from records", "embedding": "embedding once", "store": "training from the store"}
    together = found["cluster"]["inputs"] if found["cluster"] else {}
    rows = [[text, console.duration(3600 * hours[name])] for name, text in names.items() if name in hours]
    title = "expected time, arithmetic alone" if together else "expected time"
    yield _table(title, [""], rows)
    yield (
        f"  at {hours['utilisation']:.0%} of the peak, {device['peak'] / 1e12:,.4g} TFLOP/s in {found['precision']} "
        f"({device['peak_is']}), on {found['devices']} x {device['name']}; an estimate, without reading "
        "photos, loading a tower and evaluating"
    )
    if hours["photos_per_s"]:
        yield f"  the image tower by its own speed, measured here: {hours['photos_per_s']:,.3g} photos a second"


def _about_cluster(found: Mapping[str, Any]) -> Iterator[str]:
    facts = found["cluster"]
    links, inputs = facts["links"], facts["inputs"]
    speeds = {"device": links["kind"], "network": "the network", "host": "PCIe"}
    rows = [[text, *(_part(facts["inputs"][name], part, speeds) for name in inputs)] for part, text in PARTS.items()]
    for text, name, shown in (
        ("a step", "step_s", _seconds),
        ("on one device", "alone_s", _seconds),
        ("efficiency against one device", "efficiency", "{:.0%}".format),
        ("all steps", "hours", lambda hours: console.duration(3600 * hours)),
        ("photos a second of each host", "photos_per_s_host", "{:,.0f}".format),
    ):
        rows.append([text, *(shown(facts["inputs"][source][name]) for source in inputs)])
    hosts = f"{facts['hosts']} hosts of " if facts["hosts"] > 1 else ""
    title = f"a step on {hosts}{facts['devices_per_host']} x {found['device']['name']}"
    yield _table(title, [f"input {name}" for name in inputs], rows)
    network = f", network {links['network'] * 8e-9:,.4g} Gbit/s a host" if facts["hosts"] > 1 else ""
    yield (
        f"  links: {links['kind']} {links['device'] / 1e9:,.4g} GB/s{network}, PCIe {links['host'] / 1e9:,.4g} GB/s, "
        f"one way, of which {links['share']:.0%} are taken to be reached; nothing overlaps but the input"
    )
    for name, step in inputs.items():
        equal = f"with about {step['equal_devices']:,} devices, at the same batch, moving takes as long as computing"
        most, after = (_where(step, step[part], speeds) for part in ("bottleneck", "next"))
        yield f"  input {name}: most of a step is {most}, next is {after}; {equal}"


PARTS = {
    cluster.ARITHMETIC: "arithmetic",
    cluster.GRADIENTS: "gradients, summed over all devices",
    cluster.TEXTS: "texts, gathered for the loss, and their gradients",
    cluster.INPUT: "input from the host's memory, meanwhile",
}


def _part(step: Mapping[str, Any], part: str, speeds: Mapping[str, str]) -> str:
    """The time of a part on its slowest link, and what passes it."""
    link, seconds = max(step["seconds"][part].items(), key=lambda item: item[1])
    if part == cluster.ARITHMETIC:
        return _seconds(seconds)
    nbytes = step["moved"]["input"] if part == cluster.INPUT else step["sent"][part]
    return f"{_size(round(nbytes))} by {speeds[link]}: {_seconds(seconds)}"


def _where(step: Mapping[str, Any], part: str, speeds: Mapping[str, str]) -> str:
    link = max(step["seconds"][part], key=step["seconds"][part].get)
    return part if part == cluster.ARITHMETIC else f"{part} by {speeds[link]}"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.2f} s" if seconds >= 1 else f"{1e3 * seconds:,.3g} ms"


def _size(nbytes: int) -> str:
    for unit, size in (("GiB", GIB), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if nbytes >= size:
            return f"{nbytes / size:,.2f} {unit}"
    return f"{nbytes} B"


def _flops(number: float) -> str:
    for unit, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:,.2f} {unit}"
    return f"{number:,.0f}"
