"""`toolchain generate --backend openai`: measure a language model that another program serves."""

import argparse
from contextlib import ExitStack
from typing import TYPE_CHECKING

from toolchain.cli.options import add_options, given
from toolchain.cli.output import emit, log
from toolchain.errors import UsageError
from toolchain.generate.served.settings import ServedSettings
from toolchain.recipe import Recipe
from toolchain.recipe.options import flag

if TYPE_CHECKING:
    from toolchain.energy.calls import Measure

# Options that only --backend openai has, and options that this backend does not have.
OWN = ("url", "token_file", "concurrency", "devices", "timeout")
NOT_OWN = ("cache", "batch_size", "device", "file", "trust", "allow_pickle", "trust_remote_code", "ignore_unused")

ELSEWHERE = "server_elsewhere"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for a server."""
    parser.add_argument(
        "--url", metavar="URL", help="address of the server, for --backend openai: http://HOST:PORT[/v1/completions]"
    )
    add_options(parser, ("token_file",))
    add_options(parser, ("concurrency", "devices", "timeout"), ServedSettings)


def check(args: argparse.Namespace) -> None:
    """Check that each given option can be used with the chosen backend.

    The options of a server need --backend openai. This backend does not take some of the other options.

    Raises:
        UsageError: an option does not fit; the message names it.
    """
    served = args.backend == "openai"
    if served and not args.url:
        raise UsageError("--backend openai: this backend needs a server. Give --url http://HOST:PORT.")
    wrong = [name for name in (NOT_OWN if served else OWN) if getattr(args, name, None) is not None]
    if wrong:
        what, advice = "this option works only with --backend openai", "Add that option, or leave this one out"
        if served:
            what, advice = "this option cannot be used with --backend openai", "Leave it out"
        raise UsageError(f"{flag(wrong[0])}: {what}. {advice}.")
    if args.devices and not (args.energy or args.require_energy):
        raise UsageError(
            f"--devices {args.devices}: this option works only with --energy. Add that option, or leave this one out."
        )


def run(args: argparse.Namespace, prompts: list[str], place: str, recipe: Recipe) -> None:
    """Measure the served model, and print its replies and the figures."""
    from toolchain.cli.show.served import served
    from toolchain.generate.served.endpoint import Endpoint, read_key
    from toolchain.generate.served.measure import run as measure

    settings = ServedSettings(**given(args, ServedSettings))
    endpoint = Endpoint(args.url, args.model, read_key(args.token_file))
    with ExitStack() as stack:
        energy, why_not, gpus = _energy(endpoint.host, settings, recipe, stack)
        record = measure(
            endpoint, prompts, settings, place=place, energy=energy, why_not=why_not, gpus=gpus, log=log.info
        )
    emit(args, record, served)


def _energy(
    host: str, settings: ServedSettings, recipe: Recipe, stack: ExitStack
) -> "tuple[Measure | None, str, list[str]]":
    """Return the function that measures the energy of the GPUs, a reason code, and the names of the GPUs.

    The function is None if the energy is not measured, and the code says why; otherwise the code is empty.

    Raises:
        MachineError: --require-energy is given, and a GPU cannot be measured or the server is on another machine.
    """
    from toolchain.energy.calls import joules_per_call
    from toolchain.energy.evaluation import required
    from toolchain.energy.protocol import Protocol
    from toolchain.energy.record import NOT_REQUESTED
    from toolchain.energy.text import reason
    from toolchain.generate.served.endpoint import is_here
    from toolchain.meters.energy import open_meter
    from toolchain.meters.sources import BOARD

    if not recipe.wants_energy:
        return None, NOT_REQUESTED, []
    missing, meter = ELSEWHERE, None
    if is_here(host):
        meter = stack.enter_context(open_meter(settings.device))
        missing = meter.missing.get(BOARD, ("", ""))[0]  # not empty if any of the GPUs cannot be measured
    if meter is None or missing:
        if recipe.require_energy:
            raise required(missing, reason(missing))
        log.warning("warning: energy is not measured: %s (%s)", reason(missing), missing)
        return None, missing, []
    protocol = Protocol(window_s=recipe.energy_window, seed=recipe.seed)
    measure = joules_per_call(meter, protocol, device=settings.device, components=(BOARD,))
    return measure, "", [gpu.name for gpu in meter.inventory.gpus]
