"""The server under load and with broken engines: ``python -m bench load --home DIR``.

Each figure stands beside its limit. Not a comparison with other programs: see ``serving_vs_script``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import aiohttp

from bench import load_traffic
from bench.load_client import session
from bench.load_faults import faults
from bench.load_figures import Figure, table
from bench.load_garbage import GarbageServer
from bench.load_overhead import overhead
from bench.load_server import Server, home_at, prepare, running
from danlu.errors import DanluError
from danlu.models.versions import ModelVersion
from danlu.settings import Home

SCENARIOS = ("overhead", "idle", "health", "burst", "leavers", "faults", "hour")


def main(words: list[str]) -> int:
    """Run the scenarios, print the table; 1 when a figure is short of its limit."""
    parser = argparse.ArgumentParser(prog="python -m bench load", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="a home of its own, with the starter model pulled")
    parser.add_argument("--scenario", default=",".join(SCENARIOS), help="comma-separated; default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="share of 1,000 leavers and of the hour")
    parser.add_argument("--repeats", type=int, default=10, help="pairs of turns of the overhead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for all figures")
    options = parser.parse_args(words)
    wanted = options.scenario.split(",")
    if unknown := sorted(set(wanted) - set(SCENARIOS)):
        parser.error(f"no such scenario: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    if options.scale <= 0 or options.repeats < 1:
        parser.error("--scale must be above 0 and --repeats at least 1")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the server is ended, too
    try:
        figures = asyncio.run(_measure(options, wanted))
    except (DanluError, aiohttp.ClientError, ValueError, RuntimeError, TimeoutError) as error:
        print(f"the measurement ended: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(table(figures))
    print(f"cores: {os.cpu_count()}; load of the machine before: {'unknown' if load is None else f'{load:.1f}'}")
    if options.json is not None:
        rows = [{**asdict(figure), "verdict": figure.verdict} for figure in figures]
        about = {"scale": options.scale, "seed": options.seed, "cores": os.cpu_count(), "load_before": load}
        options.json.write_text(json.dumps({**about, "figures": rows}, indent=2) + "\n", encoding="utf-8")
    return int(any(figure.verdict == "SHORT" for figure in figures))


async def _measure(options: argparse.Namespace, wanted: list[str]) -> list[Figure]:
    figures: list[Figure] = []
    home, garbage = home_at(options.home), GarbageServer()
    async with garbage.running(), session() as http:
        version = await asyncio.to_thread(prepare, home, garbage.url)
        async with running(home, http) as server:
            for name in wanted:
                print(f"{name} …", file=sys.stderr, flush=True)
                made = await _scenario(name, options, server, garbage, home, version)
                print(table(made), file=sys.stderr, flush=True)  # so that an interrupted measurement is not lost
                figures += made
    return figures


async def _scenario(
    name: str, options: argparse.Namespace, server: Server, garbage: GarbageServer, home: Home, version: ModelVersion
) -> list[Figure]:
    if name == "overhead":
        return await overhead(server, home, version, options.repeats)
    if name == "idle":
        return await load_traffic.idle(server)
    if name == "health":
        return await load_traffic.health(server, 15.0)
    if name == "burst":
        return await load_traffic.burst(server)
    if name == "leavers":
        return await load_traffic.leavers(server, max(1, round(1000 * options.scale)), options.seed)
    if name == "faults":
        return await faults(server, garbage)
    return await load_traffic.hour(server, 3600 * options.scale, options.seed)
