"""`blendrun serve`: OpenAI's Files and Batches API over one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from blendrun.cli.choices import choice
from blendrun.names import AUTO, DeviceName, EngineName, OrderName, Overlap


def serve(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Alias (see configs/models), hub id, folder or GGUF file."),
    ] = None,
    store: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder that holds files, batches and their answers.")
    ] = Path("blendrun-store"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1; 0: any free one.")] = 8080,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Let clients in that give this key; may be repeated, and each sees only what is its own. "
            "Default: BLENDRUN_API_KEY, or a key that is made and kept in the store.",
        ),
    ] = None,
    idle: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Let the engine go after so long without work. Default: never."),
    ] = None,
    max_lines: Annotated[int, typer.Option(min=1, help="Requests of one batch, at most.")] = 50_000,
    max_file_bytes: Annotated[int, typer.Option(min=1, help="Bytes of one file, at most.")] = 200 << 20,
    max_line_bytes: Annotated[int, typer.Option(min=1, max=64 << 20, help="Bytes of one line, at most.")] = 16 << 20,
    order: Annotated[str, choice([AUTO, *OrderName], "Order in which requests are fed; as of run.")] = AUTO,
    overlap: Annotated[str, choice([AUTO, *Overlap], "How prefill and decode share a step; as of run.")] = AUTO,
    engine: Annotated[
        str, typer.Option(metavar=f"{'|'.join(EngineName)}|URL,...", help="What answers; as of run.")
    ] = EngineName.SGLANG.value,
    replicas: Annotated[int | None, typer.Option(min=1, metavar="N", help="Engines side by side.")] = None,
    tp: Annotated[int | None, typer.Option(min=1, metavar="N", help="GPUs of one engine (tensor parallel).")] = None,
    engine_arg: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="Argument of SGLang's engine; may be repeated.")
    ] = None,
    device: Annotated[DeviceName, typer.Option(help="Where it runs.")] = DeviceName.AUTO,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads (CPU only). Default: all cores.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code of the model's folder.")
    ] = False,
) -> None:
    """Serve batches to clients of OpenAI's API (client.files, client.batches) on this machine.

    Batches that wait are planned together as one job, so they share prefixes and blend; each keeps its own files. The
    engine stays loaded between jobs. A server that was killed goes on with every batch when it is started again.
    """
    from blendrun.backends.deadline import parse_duration
    from blendrun.engine.settings import parse_engine_args
    from blendrun.service.serve import ServeOptions, keys_of
    from blendrun.service.serve import serve as serve_batches
    from blendrun.service.validation import Limits

    given: dict[str, Any] = {
        "model": model,
        "order": None if order == AUTO else order,
        "overlap": None if overlap == AUTO else overlap,
        "engine": engine,
        "replicas": replicas,
        "tp": tp,
        "engine_args": parse_engine_args(engine_arg or []),
        "device": device,
        "threads": threads,
        "trust_remote_code": trust_remote_code,
    }
    serve_batches(
        ServeOptions(
            store=store,
            run={name: value for name, value in given.items() if value is not None},
            port=port,
            keys=keys_of(api_key),
            idle=None if idle is None else parse_duration(idle, "--idle"),
            limits=Limits(max_lines, max_file_bytes, max_line_bytes),
        )
    )
