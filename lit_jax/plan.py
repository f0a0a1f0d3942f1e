"""What a run will cost, before it runs: ``python -m lit_jax.plan --config=configs/cub.py``."""

import argparse
import math
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from lit_jax import config as options
from lit_jax.base import hosts
from lit_jax.base.command_line import Parser
from lit_jax.base.files import replaceable, write_json
from lit_jax.errors import UserError, user_errors_in_one_line
from lit_jax.planning import abstract_run
from lit_jax.planning.cluster import NETWORK
from lit_jax.planning.costs import UTILISATION, chosen_device, measured_photos, plan
from lit_jax.planning.device_table import ALIASES, DEVICES
from lit_jax.planning.tables import shown
from lit_jax.settling import settle_plan


def main(argv: Sequence[str] | None = None) -> None:
    """The command; see ``--help``."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with user_errors_in_one_line():
        rest, overrides = options.split_arguments(arguments)
        parsed = _parser().parse_args(rest)
        if parsed.json:
            replaceable(pathlib.Path(parsed.json), "--json", ("input", "devices"))
        config, _ = options.load(parsed.config, overrides)
        hosts.keep_compiled()
        settled, found = settle_plan(config)
        data = abstract_run.known_data(
            settled,
            found,
            examples=parsed.examples,
            vocab_size=parsed.vocab_size,
            captions=parsed.captions,
            longest=parsed.longest,
        )
        name, each = parsed.devices
        if name and parsed.device:
            raise UserError(f"--device: found it beside --devices {name}:{each}, expected one of them")
        run = abstract_run.prepare(settled, data, each * parsed.hosts, hosts=parsed.hosts)
        name = ALIASES.get(name or parsed.device, name or parsed.device)
        device = chosen_device(run, name, memory_gib=parsed.memory, tflops=parsed.tflops)
        if not (name or parsed.tflops) and run.has_tower and run.is_locked:
            device = device._replace(photos=measured_photos(run, device))
        planned = plan(run, device, utilisation=parsed.utilisation, network=parsed.network)
        print(shown(planned))
        if parsed.json:
            write_json(parsed.json, planned)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lit_jax.plan",
        elsewhere=options.as_override,
        description="Tells what a run will cost before it runs: parameters, steps, memory, arithmetic, the largest "
        "batch that fits, what moves between devices and hosts, hours. Options of the config are given as for "
        "lit_jax.main.",
    )
    add = parser.add_argument
    add("--config", required=True, help="a Python file such as configs/cub.py")
    add(
        "--examples",
        type=_above_zero(int),
        default=0,
        help="photos to train on, where there are no data yet (default: those of the data)",
    )
    add(
        "--vocab-size",
        type=_above_zero(int),
        default=0,
        help="of the tokenizer, where there is none yet (default: the tokenizer's)",
    )
    add(
        "--captions",
        type=_above_zero(int),
        default=0,
        help="distinct captions (default: those of the data, or one a photo)",
    )
    add(
        "--longest",
        type=_above_zero(int),
        default=0,
        help="tokens of the longest caption (default: that of the data, or text.context)",
    )
    add("--device", choices=[*DEVICES, *ALIASES], help="to plan for (default: this machine's)")
    add(
        "--devices",
        type=_devices,
        default=("", 0),
        metavar="[NAME:]COUNT",
        help="how many in each host, and of which kind, as in v100:8 (default: train.devices, or all of this machine)",
    )
    add("--hosts", type=_above_zero(int), default=1, help="how many, each with as many devices")
    add("--network", type=_above_zero(float), default=NETWORK, help="of each host, Gbit/s")
    add(
        "--memory",
        type=_above_zero(float),
        default=0,
        help="GiB of each that the program may use, instead (default: the device's)",
    )
    add(
        "--tflops",
        type=_above_zero(float),
        default=0,
        help="peak of each in matrix products, instead (default: the device's)",
    )
    add("--utilisation", type=_share, default=UTILISATION, help="share of the peak reached")
    add("--json", default="", metavar="FILE", help="write the plan there too")
    parser.set_defaults(distributed=False, coordinator="", processes=None, process=None)
    return parser


def _above_zero(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def number(text: str) -> Any:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"found {text}, expected more than 0")
        return value

    return number


def _devices(text: str) -> tuple[str, int]:
    """The kind of device, which may be empty, and how many of it."""
    name, _, count = text.rpartition(":")
    if not (count.isdecimal() and int(count)) or (":" in text and name not in {*DEVICES, *ALIASES}):
        raise argparse.ArgumentTypeError(
            f"found {text}, expected a whole number above 0, or NAME:COUNT of {', '.join([*DEVICES, *ALIASES])}"
        )
    return name, int(count)


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected more than 0 and at most 1")
    return value


if __name__ == "__main__":
    main()
