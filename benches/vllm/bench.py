"""What being scraped costs a model server: a real vLLM, measured from outside.

    bench.py FOLDER SCALER [--rounds N] [--seconds N]

FOLDER is what setup.sh made, SCALER the scaler's binary. Starts vLLM on the processor and then:

1. without load: processor seconds of vLLM's API server for each scrape of the plain page and of the
   page that the scaler asks for; and how long a request waits that comes right behind one, for the API
   server renders both on the event loop that serves requests.
2. under a steady load, in phases that take turns so that whatever else the machine does hits all alike:
   no scraping; plain pages and our scaler's filtered ones, each at 1 s and at 200 ms. For each phase:
   latency of requests and the time between streamed tokens as a client sees them, and how long the event
   loop keeps a request for /health waiting.

Our scaler itself fetches the filtered pages, asked over gRPC as KEDA asks. It has no way to be told to
fetch plain pages from a server that filters, so these are fetched by a loop over one keep-alive
connection, as Prometheus would. Everything talks to loopback addresses; every process started is ended.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import aiohttp
import grpc

WORDS = "the quick brown fox jumps over lazy dog scaling pods queue depth cache pressure request token".split()
METRIC = "vllm:num_requests_waiting"
# A steady load that the machine carries with ease, so that requests wait for the API server if for anything.
REQUEST_EVERY = 0.25
TOKENS = 16
PROBE_EVERY = 0.02
PHASES = [("none", None, 0.0), ("plain, 1 s", "plain", 1.0), ("plain, 200 ms", "plain", 0.2),
          ("filtered, 1 s", "filtered", 1.0), ("filtered, 200 ms", "filtered", 0.2)]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def process(command: list[str], log: Path, env: dict | None = None):
    """Runs a command in a process group of its own, which is ended with the block."""
    with log.open("w") as output:
        started = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT,
                                   env={**os.environ, **(env or {})}, start_new_session=True)
        try:
            yield started
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGTERM)
                try:
                    started.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(started.pid, signal.SIGKILL)
                    started.wait()


@contextlib.contextmanager
def vllm(folder: Path, port: int):
    command = [
        str(folder / "venv/bin/vllm"), "serve", str(folder / "model"), "--served-model-name", "tiny",
        "--host", "127.0.0.1", "--port", str(port), "--load-format", "dummy", "--dtype", "bfloat16",
        "--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "4", "--max-num-batched-tokens", "1024",
    ]
    env = {
        "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "0", "VLLM_LOGGING_LEVEL": "WARNING",
        "PATH": f"{folder / 'venv/bin'}:{os.environ['PATH']}",
    }
    log = folder / "vllm.log"
    with process(command, log, env) as server:
        deadline = time.monotonic() + 600
        while not healthy(port):
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"vLLM did not come up: see {log}")
            time.sleep(1)
        yield server


def healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def cpu_seconds(pid: int) -> float:
    """Processor time of one process with all its threads, without its children, to the nanosecond."""
    # Linux's clock of another process: what clock_getcpuclockid(3) returns.
    return time.clock_gettime((~pid << 3) | 2)


def page(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, f"{path}: {answer.status}"
    return body


# -- the scaler ---------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, value: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def scaled_object_ref(interval: float) -> bytes:
    metadata = {
        "inferenceSetNamespace": "bench", "inferenceSetName": "tiny", "metricName": METRIC, "threshold": "10",
        "scrapeInterval": f"{int(interval * 1000)}ms",
    }
    entries = (field(1, key.encode()) + field(2, value.encode()) for key, value in metadata.items())
    return field(1, b"tiny") + field(2, b"bench") + b"".join(field(3, entry) for entry in entries)


@contextlib.contextmanager
def scaler(binary: str, folder: Path, vllm_port: int, interval: float):
    """Our scaler, with one target registered by a call as KEDA makes it."""
    with tempfile.TemporaryDirectory() as scratch:
        endpoints = Path(scratch) / "endpoints.json"
        endpoint = {"pod": "tiny-0", "address": f"127.0.0.1:{vllm_port}", "phase": "Ready"}
        endpoints.write_text(json.dumps({"inferenceSets": [
            {"namespace": "bench", "name": "tiny", "replicas": 1, "readyReplicas": 1, "endpoints": [endpoint]},
        ]}))
        grpc_port, metrics_port = free_port(), free_port()
        command = [binary, "run", "--endpoints-file", str(endpoints), "--insecure-grpc", "--grpc-port", str(grpc_port),
                   "--metrics-port", str(metrics_port), "--grpc-health-port", "0", "--shutdown-delay", "0s"]
        with process(command, folder / "scaler.log"), grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
            same = lambda message: message
            is_active = channel.unary_unary("/externalscaler.ExternalScaler/IsActive", same, same)
            # The call registers the target, whether or not there is an answer yet.
            with contextlib.suppress(grpc.RpcError):
                is_active(scaled_object_ref(interval), timeout=10)
            yield metrics_port


def scrapes_of(metrics_port: int) -> dict[str, int]:
    """How many pages of each kind the scaler has got, and which kind its endpoint is asked for."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    ok = re.search(r'^keda_kaito_scaler_scrapes_total\{outcome="ok"\} (\d+)', text, re.M)
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/debug/targets", timeout=5) as answer:
        kind = json.load(answer)[0]["endpoints"][0]["page"]
    assert kind == "filtered", f"the scaler reads {kind} pages"
    return int(ok[1]) if ok else 0


# -- without load -------------------------------------------------------------------------------------


def filtered_path(folder: Path, binary: str, vllm_port: int) -> str:
    """The very request that the scaler sends, as a listener sees it that passes it on to nobody."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(30)
        with scaler(binary, folder, listener.getsockname()[1], 1.0):
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                request = b""
                while b"\r\n" not in request:
                    request += connection.recv(4096)
    return request.split(b" ")[1].decode()


def cost_of_a_scrape(pid: int, port: int, paths: dict[str, str], repeats: int, rounds: int) -> dict:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    costs = {name: [] for name in ["idle", *paths]}
    times = {name: [] for name in paths}
    sizes = {name: len(page(connection, path)) for name, path in paths.items()}
    for _ in range(rounds):
        # What it does when nobody asks is no part of a scrape.
        before, since = cpu_seconds(pid), time.monotonic()
        time.sleep(2)
        costs["idle"].append((cpu_seconds(pid) - before) / (time.monotonic() - since))
        for name, path in paths.items():
            before = cpu_seconds(pid)
            for _ in range(repeats):
                since = time.perf_counter()
                page(connection, path)
                times[name].append(time.perf_counter() - since)
            costs[name].append((cpu_seconds(pid) - before) / repeats)
    beside = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    waits = {name: [] for name in [None, *paths]}
    for _ in range(rounds * 20):
        for name in waits:
            waits[name].append(wait_behind(connection, beside, paths.get(name)))
            time.sleep(0.01)
    return {
        "health_ms_p50": 1e3 * statistics.median(waits[None]),
        "idle_cpu_seconds_per_second": statistics.median(costs["idle"]),
        **{name: {
            "bytes": sizes[name],
            "cpu_ms": 1e3 * statistics.median(costs[name]),
            "cpu_ms_by_round": [round(1e3 * cost, 3) for cost in costs[name]],
            "time_ms_p50": 1e3 * statistics.median(times[name]),
            "health_behind_it_ms_p50": 1e3 * statistics.median(waits[name]),
        } for name in paths},
    }


def wait_behind(connection: http.client.HTTPConnection, beside: http.client.HTTPConnection, path: str | None) -> float:
    """How long a request for /health takes that is sent right after a scrape of `path`."""
    if path:
        connection.request("GET", path)
    since = time.perf_counter()
    page(beside, "/health")
    took = time.perf_counter() - since
    if path:
        connection.getresponse().read()
    return took


# -- under load ---------------------------------------------------------------------------------------


class Observed:
    """What clients saw of one phase."""

    def __init__(self) -> None:
        self.requests: list[float] = []
        self.token_gaps: list[float] = []
        self.health: list[float] = []
        self.scrapes: list[float] = []
        self.failed = 0


async def request(session: aiohttp.ClientSession, url: str, observed: Observed) -> None:
    body = {"model": "tiny", "prompt": " ".join(random.choices(WORDS, k=40)), "max_tokens": TOKENS,
            "ignore_eos": True, "temperature": 1.0, "stream": True}
    since = last = time.perf_counter()
    try:
        async with session.post(f"{url}/v1/completions", json=body) as answer:
            async for _ in answer.content.iter_any():
                now = time.perf_counter()
                observed.token_gaps.append(now - last)
                last = now
            observed.failed += answer.status != 200
    except (aiohttp.ClientError, asyncio.TimeoutError):
        observed.failed += 1
    observed.requests.append(time.perf_counter() - since)


async def until(end: float, step) -> None:
    while time.monotonic() < end:
        await step()


async def timed(session: aiohttp.ClientSession, url: str, into: list[float], every: float) -> None:
    """One GET, and a rest until the next is due."""
    since = time.perf_counter()
    async with session.get(url) as answer:
        await answer.read()
    took = time.perf_counter() - since
    into.append(took)
    await asyncio.sleep(max(0.0, every - took))


async def load(session: aiohttp.ClientSession, url: str, observed: Observed, end: float) -> None:
    """A request at fixed times, whether or not those before have ended."""
    due = time.monotonic()
    async with asyncio.TaskGroup() as requests:
        while due < end:
            requests.create_task(request(session, url, observed))
            due += REQUEST_EVERY
            await asyncio.sleep(max(0.0, due - time.monotonic()))


async def phase(url: str, seconds: float, plain_every: float | None) -> Observed:
    observed = Observed()
    end = time.monotonic() + seconds
    timeout = aiohttp.ClientTimeout(total=120)
    connections = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connections) as session:
        jobs = [load(session, url, observed, end),
                until(end, lambda: timed(session, f"{url}/health", observed.health, PROBE_EVERY))]
        if plain_every:
            jobs.append(until(end, lambda: timed(session, f"{url}/metrics", observed.scrapes, plain_every)))
        await asyncio.gather(*jobs)
    return observed


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def run_phase(name: str, pages: str | None, interval: float, arguments, port: int, pid: int) -> dict:
    url = f"http://127.0.0.1:{port}"
    plain_every = interval if pages == "plain" else None
    scraper = contextlib.nullcontext()
    if pages == "filtered":
        scraper = scaler(arguments.scaler, arguments.folder, port, interval)
    with scraper as metrics_port:
        before, since = cpu_seconds(pid), time.monotonic()
        observed = asyncio.run(phase(url, arguments.seconds, plain_every))
        cpu = (cpu_seconds(pid) - before) / (time.monotonic() - since)
        scrapes = scrapes_of(metrics_port) if metrics_port else len(observed.scrapes)
    assert observed.failed == 0, f"{observed.failed} requests failed"
    return {
        "phase": name,
        "requests": len(observed.requests),
        "scrapes": scrapes,
        "api_server_cpu": cpu,
        "request_ms_p50": 1e3 * percentile(observed.requests, 0.5),
        "request_ms_p99": 1e3 * percentile(observed.requests, 0.99),
        "token_gap_ms_p99": 1e3 * percentile(observed.token_gaps, 0.99),
        "health_ms_p50": 1e3 * percentile(observed.health, 0.5),
        "health_ms_p99": 1e3 * percentile(observed.health, 0.99),
        "health_ms_mean": 1e3 * statistics.fmean(observed.health),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=lambda text: Path(text).resolve())
    parser.add_argument("scaler")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", type=Path, default=None, help="where the figures go")
    arguments = parser.parse_args()

    port = free_port()
    with vllm(arguments.folder, port) as server:
        paths = {"plain": "/metrics", "filtered": filtered_path(arguments.folder, arguments.scaler, port)}
        asyncio.run(phase(f"http://127.0.0.1:{port}", 10, None))  # so that every family has series
        unloaded = cost_of_a_scrape(server.pid, port, paths, repeats=100, rounds=arguments.rounds)
        runs = []
        for round_ in range(arguments.rounds):
            # Another phase comes first in each round.
            start = round_ % len(PHASES)
            for name, pages, interval in PHASES[start:] + PHASES[:start]:
                runs.append(run_phase(name, pages, interval, arguments, port, server.pid))
                print(f"round {round_ + 1}: {name}", file=sys.stderr, flush=True)

    figures = [key for key in runs[0] if key != "phase"]
    loaded = {name: {key: statistics.median(run[key] for run in runs if run["phase"] == name) for key in figures}
              for name, *_ in PHASES}
    report = {"without_load": unloaded, "under_load": loaded, "runs": runs}
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))
    show(unloaded, loaded)


def show(unloaded: dict, loaded: dict) -> None:
    print(f"without load: the API server idles at {unloaded['idle_cpu_seconds_per_second']:.3f} of a core")
    print(f"  and answers /health in {unloaded['health_ms_p50']:.2f} ms")
    print(f"{'a scrape of':<18} {'bytes':>8} {'cpu ms':>8} {'p50 ms':>8} {'/health right behind it, p50 ms':>32}")
    for name in ("plain", "filtered"):
        row = unloaded[name]
        print(f"{name:<18} {row['bytes']:>8} {row['cpu_ms']:>8.2f} {row['time_ms_p50']:>8.2f} {row['health_behind_it_ms_p50']:>32.2f}")
    columns = {"requests": "requests", "scrapes": "scrapes", "api_server_cpu": "api cpu", "request_ms_p50": "req p50",
               "request_ms_p99": "req p99", "token_gap_ms_p99": "gap p99", "health_ms_p50": "loop p50",
               "health_ms_mean": "loop mean", "health_ms_p99": "loop p99"}
    print("\nunder load (medians of the rounds; times in ms, cpu in cores)")
    print(f"{'scraping':<18}" + "".join(f" {title:>9}" for title in columns.values()))
    for name, row in loaded.items():
        print(f"{name:<18}" + "".join(f" {row[key]:>9.2f}" for key in columns))


if __name__ == "__main__":
    main()
