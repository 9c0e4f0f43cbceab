"""`toolchain serve`: the standalone service, until it is ended."""

import argparse
import asyncio
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.cli.options import add_options
from toolchain.cli.output import log
from toolchain.errors import MachineError, UsageError
from toolchain.serve.limits import DEFAULTS

if TYPE_CHECKING:
    from toolchain.serve.server import Options, Started

LIMITS = {
    "max_batch": ("max_batch", "ROWS", "rows of one request"),
    "max_queue": ("max_queue", "ROWS", "rows that may wait; above, 503"),
    "max_characters": ("max_characters", "N", "characters of a text"),
    "max_body": ("max_body_bytes", "BYTES", "of a request, packed and unpacked"),
    "timeout": ("timeout_s", "S", "how long a request may wait in the queue"),
}
"""Option -> what it sets in serve/limits.py, its metavar and help."""


def serve(args: argparse.Namespace) -> None:
    """Serve a bundle until a signal."""
    try:
        import uvloop

        from toolchain.serve.limits import Limits
        from toolchain.serve.server import serve
        from toolchain.serve.service import open_service
    except ModuleNotFoundError as error:
        what = f"{error.name} is not installed. Install it: pip install 'encoder-toolchain[serve]'."
        raise MachineError(f"serve: {what}") from error
    options = _options(args)
    given = {limit: value for name, (limit, *_) in LIMITS.items() if (value := getattr(args, name)) is not None}
    opened = open_service(
        Path(args.bundle),
        name=args.name,
        file=args.file,
        device=args.device or "auto",
        backend=args.backend,
        trust=args.trust,
        cuda_graphs=args.cuda_graphs,
        limits=Limits(**given),
        instances=args.instances,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(opened, options, started=lambda found: _tell(args, found)))


def _options(args: argparse.Namespace) -> "Options":
    from toolchain.serve.guard import read_token
    from toolchain.serve.server import Options, Tls

    if bool(args.tls_cert) != bool(args.tls_key):
        raise UsageError("--tls-cert and --tls-key: one without the other. Give both.")
    return Options(
        host=args.host,
        http_port=args.http_port,
        grpc_port=None if args.no_grpc else args.grpc_port,
        token=read_token(Path(args.token_file)) if args.token_file else None,
        tls=Tls(Path(args.tls_cert), Path(args.tls_key)) if args.tls_cert else None,
        drain_s=args.drain,
    )


def _tell(args: argparse.Namespace, found: "Started") -> None:
    """Say where it is, to stderr for a person and to stdout for a program."""
    token = f"""-H "Authorization: Bearer $(cat {args.token_file})" """ if args.token_file else ""
    log.info("%s is served. Ctrl-C ends it.", found.name)
    log.info("  page     %s/", found.http)
    log.info("  API      %s/docs, metrics at /metrics", found.http)
    if found.grpc:
        log.info("  gRPC     %s", found.grpc)
    log.info("""  try it   curl %s%s/classify -d '{"text": "a gripping film"}'""", token, found.http)
    if args.json:
        print(json.dumps(dataclasses.asdict(found)), flush=True)


def serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is its alone."""
    add = parser.add_argument
    add("bundle", metavar="BUNDLE", help="the bundle's folder")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (default 127.0.0.1: this machine only)")
    for wire, port in (("http", 8000), ("grpc", 8001)):
        add(f"--{wire}-port", type=_port, default=port, metavar="PORT", help=f"default {port}; 0 for any free one")
    add("--no-grpc", action="store_true", help="HTTP alone")
    add("--name", metavar="NAME", help="the model's name on the wire (default the checkpoint's)")
    add(
        "--instances",
        type=_above_zero,
        metavar="N",
        help="engines that run side by side (default 1; on a CPU one for each processor, up to 4)",
    )
    add_options(parser, ("backend", "device", "file", "cuda_graphs", "trust"))
    for name, (limit, metavar, text) in LIMITS.items():
        kind, default = _seconds if name == "timeout" else _above_zero, str(getattr(DEFAULTS, limit))
        add(
            f"--{name.replace('_', '-')}",
            type=kind,
            metavar=metavar,
            help=f"{text} (default {default.removesuffix('.0')})",
        )
    add("--token-file", metavar="FILE", help="ask clients for the token in it: Authorization: Bearer TOKEN")
    add("--tls-cert", metavar="FILE", help="serve with TLS: the certificate, PEM")
    add("--tls-key", metavar="FILE", help="and its key")
    add("--drain", type=_seconds, default=5.0, metavar="S", help="after SIGTERM, go on answering so long (default 5)")


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20  # Python takes more digits, of any script


def _port(text: str) -> int:
    if not _is_count(text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give 0 to 65535")
    return int(text)


def _above_zero(text: str) -> int:
    if not _is_count(text) or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return found
