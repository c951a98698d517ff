"""`unlearn-bench doctor`: what works on this machine, and why not."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from unlearn_bench.cli import options
from unlearn_bench.cli.root import app, ends_cleanly, examples


@app.command(epilog=examples("doctor", "doctor --data my-data --offline --json"))
@ends_cleanly
def doctor(
    data: options.Data = None,
    offline: options.Offline = None,
    as_json: options.AsJson = False,
    verbose: options.Verbose = False,
) -> None:
    """Say what is installed, which engine would run, what data is reachable, and the free disk."""
    from unlearn_bench.config import load_config
    from unlearn_bench.doctor import examine
    from unlearn_bench.runs.progress import silence_libraries

    silence_libraries(verbose=verbose)
    findings = examine(load_config({"data": data, "offline": offline}))
    if as_json:
        typer.echo(json.dumps([asdict(found) for found in findings], indent=1))
        return
    room = ""
    for finding in findings:
        if finding.room != room:
            room = finding.room
            typer.echo(room)
        mark = {True: "ok", False: "!!", None: "  "}[finding.ok]
        typer.echo(f"  {mark} {finding.name}: {finding.state}")
