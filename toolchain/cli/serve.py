"""`toolchain serve`: serve a bundle over HTTP and gRPC until a signal ends it."""

import argparse
import asyncio
import json
import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.cli.options import add_options, group
from toolchain.cli.output import log
from toolchain.errors import MachineError, UsageError
from toolchain.recipe.options import flag
from toolchain.serve.limits import DEFAULTS

if TYPE_CHECKING:
    from toolchain.records.serving import Endpoints
    from toolchain.serve.server import ServerOptions

# Option -> its field in serve/limits.py, its metavar and its help text.
LIMITS = {
    "max_batch": ("max_batch", "ROWS", "maximum number of rows in one request"),
    "max_queue": (
        "max_queue",
        "ROWS",
        "maximum number of rows in the queue; a request that exceeds it is refused with 503",
    ),
    "max_characters": ("max_characters", "N", "maximum number of characters in one text"),
    "max_body": ("max_body_bytes", "BYTES", "maximum size of a request's body, both compressed and decompressed"),
    "timeout": ("timeout_s", "S", "maximum time that a request may wait in the queue, in seconds"),
}


def serve(args: argparse.Namespace) -> None:
    """Serve a bundle until SIGINT, SIGTERM or SIGHUP."""
    try:
        import uvloop

        from toolchain.serve.limits import Limits
        from toolchain.serve.request_log import JsonLines
        from toolchain.serve.server import serve
        from toolchain.serve.service import open_service
    except ModuleNotFoundError as error:
        raise MachineError(
            f"serve: {error.name} is not installed. Install it: pip install 'encoder-toolchain[serve]'."
        ) from error
    options = _options(args)
    if args.log == "json":  # libraries log through the root logger, and their lines must be JSON too
        log.handlers[0].setFormatter(JsonLines())
        logging.getLogger().handlers[:] = log.handlers
        logging.captureWarnings(True)
    given = {limit: value for name, (limit, *_) in LIMITS.items() if (value := getattr(args, name)) is not None}
    opened = open_service(
        Path(args.bundle),
        name=args.name,
        file=args.file,
        device=args.device or "auto",
        backend=args.backend,
        trust=args.trust,
        threshold=args.threshold,
        cuda_graphs=args.cuda_graphs,
        limits=Limits(**given),
        instances=args.instances,
        cache=args.cache,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(opened, options, on_started=lambda endpoints: _print_endpoints(args, endpoints)))


def _options(args: argparse.Namespace) -> "ServerOptions":
    from toolchain.serve.auth import read_token
    from toolchain.serve.server import ServerOptions
    from toolchain.serve.tls import Tls

    if bool(args.tls_cert) != bool(args.tls_key):
        raise UsageError("--tls-cert and --tls-key: one is given without the other. Give both.")
    return ServerOptions(
        host=args.host,
        http_port=args.http_port,
        grpc_port=None if args.no_grpc else args.grpc_port,
        token=read_token(Path(args.token_file)) if args.token_file else None,
        tls=Tls(Path(args.tls_cert), Path(args.tls_key)) if args.tls_cert else None,
        drain_s=args.drain,
        log=args.log,
    )


def _print_endpoints(args: argparse.Namespace, endpoints: "Endpoints") -> None:
    """Log the addresses of the service to stderr; with --json, also print them to stdout."""
    token = f"""-H "Authorization: Bearer $(cat {args.token_file})" """ if args.token_file else ""
    log.info("%s is served. Ctrl-C ends it.", endpoints["name"])
    log.info("  page     %s/", endpoints["http"])
    log.info("  API      %s/docs, metrics at /metrics", endpoints["http"])
    if endpoints["grpc"]:
        log.info("  gRPC     %s", endpoints["grpc"])
    body = shlex.quote(json.dumps(endpoints["example"], ensure_ascii=False))
    log.info("  try it   curl %s%s/classify -d %s", token, endpoints["http"], body)
    if args.json:
        print(json.dumps(endpoints), flush=True)


def serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `serve`."""
    parser.add_argument("bundle", metavar="BUNDLE", help="folder of the bundle")
    add = group(parser, "addresses").add_argument
    add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default 127.0.0.1: only this machine can connect)",
    )
    for protocol, name, port in (("http", "HTTP", 8000), ("grpc", "gRPC", 8001)):
        add(
            f"--{protocol}-port",
            type=_port,
            default=port,
            metavar="PORT",
            help=f"port of the {name} server (default {port}; 0 means any free port)",
        )
    add("--no-grpc", action="store_true", help="serve HTTP only")
    add("--name", metavar="NAME", help="name of the model in requests (default: the checkpoint's name)")
    add_options(parser, ("backend", "device", "file", "threshold", "cuda_graphs"))
    group(parser, "where it runs").add_argument(
        "--instances",
        type=_above_zero,
        metavar="N",
        help="number of engines that run side by side (default 1; on a CPU one for each processor, up to 4)",
    )
    add_cache(group(parser, "where it runs"))
    add = group(parser, "limits").add_argument
    for name, (limit, metavar, text) in LIMITS.items():
        kind, default = _seconds if name == "timeout" else _above_zero, str(getattr(DEFAULTS, limit))
        add(flag(name), type=kind, metavar=metavar, help=f"{text} (default {default.removesuffix('.0')})")
    add(
        "--log",
        choices=("off", "text", "json"),
        default="text",
        help="log each request on stderr, never its texts, tokens, headers or query; with json every line is a JSON "
        "object (default text; -q logs no requests)",
    )
    add(
        "--drain",
        type=_seconds,
        default=5.0,
        metavar="S",
        help="seconds for which new requests are still answered after SIGTERM (default 5)",
    )
    _add_access(parser)


def add_cache(parser: argparse._ActionsContainer) -> None:
    """Add the option --cache, the size of the cache of logits."""
    parser.add_argument(
        "--cache",
        type=_above_zero,
        metavar="ROWS",
        help="cache the results of the last ROWS different rows in memory, so that the model does not run them again "
        "(default off)",
    )


def _add_access(parser: argparse.ArgumentParser) -> None:
    """Add the options for the token, TLS, and the digest that the bundle must have."""
    add = group(parser, "trust").add_argument
    add("--token-file", metavar="FILE", help="require clients to send the token in FILE: Authorization: Bearer TOKEN")
    add("--tls-cert", metavar="FILE", help="serve with TLS; FILE is the certificate chain, PEM")
    add("--tls-key", metavar="FILE", help="private key of the certificate, PEM")
    add_options(parser, ("trust",))


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20  # int() also takes digits of other scripts


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
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds
