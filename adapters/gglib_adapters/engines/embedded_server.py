"""A model server in a process of its own: ``python -m gglib_adapters.engines.embedded_server``.

xllamacpp is llama.cpp's HTTP server as a Python extension; this gives it llama-server's
command line, loopback only. The API key comes from ``LLAMA_API_KEY``. SIGTERM and SIGINT
end it at once, whatever it is doing: by the signal while it loads and for a moment after it
is ready, with status 0 from then on. A model that cannot be loaded, or a port that cannot
be bound, ends it with status 1 and the reason on stderr; a flag it does not know with
status 2.
Source: xllamacpp 2026.10.11549.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from gglib_adapters.engines.embedded_flags import FLAGS, help_text
from gglib_adapters.engines.embedded_site import SITE_VARIABLE

__all__ = ["common_params", "main", "parse"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")

_LOAD_MODES = {
    "auto": "AUTO",
    "none": "NONE",
    "mmap": "MMAP",
    "mlock": "MLOCK",
    "mmap+mlock": "MMAP_MLOCK",
    "dio": "DIRECT_IO",
}
_FLASH_ATTENTION = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}

#: Switches: flag, attribute of CommonParams, value.
_SWITCHES = (
    ("kv_unified", "kv_unified", True),
    ("no_kv_unified", "kv_unified", False),
    ("jinja", "use_jinja", True),
    ("no_jinja", "use_jinja", False),
    ("embedding", "embedding", True),
    ("rerank", "embedding", True),
    ("lora_init_without_apply", "lora_init_without_apply", True),
    ("no_cache_prompt", "cache_prompt", False),
    ("context_shift", "ctx_shift", True),
    ("swa_full", "swa_full", True),
    ("no_warmup", "warmup", False),
    ("metrics", "endpoint_metrics", True),
    ("slots", "endpoint_slots", True),
    ("no_slots", "endpoint_slots", False),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"embedded server: {message}; --help lists the flags it knows\n")
        raise SystemExit(2)


def _destination(spellings: Sequence[str]) -> str:
    """Return the name of an option's value: its first long spelling."""
    long = next(spelling for spelling in spellings if spelling.startswith("--"))
    return long.removeprefix("--").replace("-", "_")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the flags' values by name, ``None`` or ``False`` for those not given.

    Raises:
        SystemExit: a flag is unknown, or a value wrong (status 2).
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    for flag in FLAGS:
        destination = _destination(flag.spellings)
        if flag.kind is None:
            parser.add_argument(*flag.spellings, dest=destination, action="store_true")
        else:
            parser.add_argument(
                *flag.spellings, dest=destination, type=flag.kind, choices=flag.choices or None
            )
    options = parser.parse_args(_joined(arguments))
    if options.host is not None and options.host not in _LOOPBACK:
        parser.error(f"--host is '{options.host}'; this server listens on loopback only")
    if not (options.help or options.version or options.model):
        parser.error("--model is missing")
    if options.slot_save_path is not None and not os.path.isdir(options.slot_save_path):  # noqa: PTH112 - pathlib would cost its import
        parser.error(f"--slot-save-path is '{options.slot_save_path}', which is not a folder")
    return options


def _joined(arguments: Sequence[str]) -> list[str]:
    """Bind each value to its flag, so that one may begin with a dash, as in llama-server."""
    valued = {
        spelling: f"--{_destination(flag.spellings).replace('_', '-')}"
        for flag in FLAGS
        if flag.kind is not None
        for spelling in flag.spellings
    }
    joined = []
    remaining = iter(arguments)
    for argument in remaining:
        value = next(remaining, None) if argument in valued else None
        joined.append(argument if value is None else f"{valued[argument]}={value}")
    return joined


def common_params(options: argparse.Namespace, environment: Mapping[str, str]) -> Any:
    """Return ``options`` as xllamacpp's ``CommonParams``."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.hostnames = [options.host or _LOOPBACK[0]]
    # llama-server's default, which is not the library's: four slots that share the context.
    params.n_parallel = -1
    for flag in FLAGS:
        value = getattr(options, _destination(flag.spellings))
        if flag.attribute and value is not None:
            *owners, name = flag.attribute.split(".")
            target = params
            for owner in owners:
                target = getattr(target, owner)
            setattr(target, name, value)
    for name, attribute, value in _SWITCHES:
        if getattr(options, name):
            setattr(params, attribute, value)
    if options.alias is not None:
        params.model_alias = {each.strip() for each in options.alias.split(",") if each.strip()}
    if options.seed is not None:
        params.sampling.seed = options.seed & 0xFFFFFFFF
    if options.fit is not None:
        params.fit_params = options.fit == "on"
    if options.slot_save_path is not None:
        params.slot_save_path = os.path.join(options.slot_save_path, "")  # noqa: PTH118 - it must end in a separator
    if keys := environment.get("LLAMA_API_KEY"):
        params.api_keys = [key for key in keys.split(",") if key]
    _set_enumerations(xllamacpp, params, options)
    _set_adapters(xllamacpp, params, options)
    return params


def _set_enumerations(xllamacpp: Any, params: Any, options: argparse.Namespace) -> None:
    if options.flash_attn is not None:
        name = f"LLAMA_FLASH_ATTN_TYPE_{_FLASH_ATTENTION[options.flash_attn]}"
        params.flash_attn_type = xllamacpp.llama_flash_attn_type[name]
    if options.load_mode is not None:
        name = f"LLAMA_LOAD_MODE_{_LOAD_MODES[options.load_mode]}"
        params.load_mode = xllamacpp.llama_load_mode[name]
    if options.cache_type_k is not None:
        params.cache_type_k = xllamacpp.ggml_type[f"GGML_TYPE_{options.cache_type_k.upper()}"]
    if options.cache_type_v is not None:
        params.cache_type_v = xllamacpp.ggml_type[f"GGML_TYPE_{options.cache_type_v.upper()}"]
    if options.reasoning_format is not None:
        name = options.reasoning_format.upper().replace("-", "_")
        params.reasoning_format = xllamacpp.common_reasoning_format[
            f"COMMON_REASONING_FORMAT_{name}"
        ]
    pooling = "rank" if options.rerank else options.pooling
    if pooling is not None:
        params.pooling_type = xllamacpp.llama_pooling_type[f"LLAMA_POOLING_TYPE_{pooling.upper()}"]
    if options.spec_type is not None:
        name = options.spec_type.upper().replace("-", "_")
        params.speculative.types = [
            xllamacpp.common_speculative_type[f"COMMON_SPECULATIVE_TYPE_{name}"]
        ]


def _set_adapters(xllamacpp: Any, params: Any, options: argparse.Namespace) -> None:
    scaled = [item.rpartition(":") for item in _csv_row(options.lora_scaled)]
    adapters = [(path, 1.0) for path in _csv_row(options.lora)]
    adapters += [(path, float(scale)) for path, _, scale in scaled]
    if adapters:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(*each) for each in adapters]


def _csv_row(text: str | None) -> list[str]:
    if not text:
        return []
    import csv

    return next(csv.reader([text]))


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("xllamacpp")
    except PackageNotFoundError:
        return "not installed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; return the status of a start that failed."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    if options.help or options.version:
        sys.stdout.write(help_text() if options.help else f"version: xllamacpp {_version()}\n")
        return 0
    # The library holds the interpreter's lock while it loads, so a handler of ours would
    # wait for the end of that: until then signals do what they do to llama-server.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    if site := os.environ.get(SITE_VARIABLE):
        sys.path.append(site)
    try:
        import xllamacpp

        params = common_params(options, os.environ)
        server = xllamacpp.Server(params)
    except ImportError as problem:
        sys.stderr.write(f"embedded server: {problem}; pip install 'gglib[llama]'\n")
        return 1
    except (OverflowError, ValueError) as problem:
        sys.stderr.write(f"embedded server: a value is out of its range: {problem}\n")
        return 2
    except RuntimeError:
        # The library says the same of both, and its log lines are not for parsing.
        host, port = options.host or _LOOPBACK[0], options.port or 0
        reason = (
            f"cannot load {options.model}; the lines above say why"
            if _can_bind(host, port)
            else f"cannot bind {host}:{port}; it is in use"
        )
        sys.stderr.write(f"embedded server: {reason}\n")
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    threading.Event().wait()
    del server
    return 0


def _can_bind(host: str, port: int) -> bool:
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        # As the server does it: connections of an earlier one that linger are no obstacle.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            return False
    return True


def _end(_number: int, _frame: object) -> NoReturn:
    # The library's own end waits for the computation in progress: seconds, with a large
    # model. Whoever sends the signal has drained the server, or wants it gone now.
    os._exit(0)


if __name__ == "__main__":
    raise SystemExit(main())
