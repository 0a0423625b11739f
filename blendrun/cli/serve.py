"""`blendrun serve`: OpenAI's Files and Batches API over one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from blendrun.cli.panels import Panel
from blendrun.names import AUTO, DeviceName, EngineName, OrderName, Overlap


def serve(
    model: Annotated[
        str | None,
        Panel.MODEL.option(
            "--model", "-m", help="Alias (see `blendrun models`), hub id, folder or GGUF file.", metavar="MODEL"
        ),
    ] = None,
    store: Annotated[
        Path, Panel.SERVER.option(metavar="DIR", help="Folder that holds files, batches and their answers.")
    ] = Path("blendrun-store"),
    port: Annotated[
        int, Panel.SERVER.option(min=0, max=65535, help="Port of 127.0.0.1; 0: any free one.", metavar="PORT")
    ] = 8080,
    api_key: Annotated[
        list[str] | None,
        Panel.SERVER.option(
            metavar="KEY",
            help="Accept clients with this key; may be repeated, and each sees only its own batches. "
            "Default: BLENDRUN_API_KEY, or a key that is made and kept in the store.",
        ),
    ] = None,
    idle: Annotated[
        str | None,
        Panel.SERVER.option(metavar="TIME", help="Unload the engine after this long without work. Default: never."),
    ] = None,
    max_lines: Annotated[int, Panel.LIMITS.option(min=1, help="Requests of one batch, at most.", metavar="N")] = 50_000,
    max_file_bytes: Annotated[
        int, Panel.LIMITS.option(min=1, help="Bytes of one file, at most.", metavar="BYTES")
    ] = 200 << 20,
    max_line_bytes: Annotated[
        int, Panel.LIMITS.option(min=1, max=64 << 20, help="Bytes of one line, at most.", metavar="BYTES")
    ] = 16 << 20,
    order: Annotated[str, Panel.ORDER.choice([AUTO, *OrderName], "Order in which requests are fed; as of run.")] = AUTO,
    overlap: Annotated[
        str, Panel.ORDER.choice([AUTO, *Overlap], "How prefill and decode share a step; as of run.")
    ] = AUTO,
    engine: Annotated[
        str, Panel.MODEL.option(metavar=f"{'|'.join(EngineName)}|URL,...", help="What answers; as of run.")
    ] = EngineName.SGLANG.value,
    replicas: Annotated[int | None, Panel.MACHINES.option(min=1, metavar="N", help="Engines side by side.")] = None,
    tp: Annotated[
        int | None, Panel.MODEL.option(min=1, metavar="N", help="GPUs of one engine (tensor parallel).")
    ] = None,
    engine_arg: Annotated[
        list[str] | None, Panel.MODEL.option(metavar="K=V", help="Argument of SGLang's engine; may be repeated.")
    ] = None,
    device: Annotated[
        DeviceName, Panel.MODEL.option(help="Where it runs; auto: a GPU if there is one.")
    ] = DeviceName.AUTO,
    threads: Annotated[
        int | None, Panel.MODEL.option(min=1, help="CPU threads (CPU only). Default: all cores.", metavar="N")
    ] = None,
    trust_remote_code: Annotated[
        bool, Panel.MODEL.option("--trust-remote-code", help="Run code of the model's folder.")
    ] = False,
) -> None:
    """Serve OpenAI's Files and Batches API on this machine.

    For clients that call client.files and client.batches. Batches that wait are planned together as one job, so they
    share prefixes and blend; each keeps its own files. The engine stays loaded between jobs. A server that was killed
    goes on with every batch when it is started again.
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
