"""Queries and centers spread over the devices of two processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from .process_worker import CASES

ROOT = Path(__file__).parents[3]
NUM_PROCESSES = 2
TIMEOUT = 600  # seconds, for all processes, on a busy machine


def test_two_processes_compute_one_sharded_call(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }
    logs = [tmp_path / f"{k}.log" for k in range(NUM_PROCESSES)]
    workers = []
    try:
        for k, log in enumerate(logs):
            command = [sys.executable, "-m", f"{__package__}.process_worker"]
            command += [str(port), str(NUM_PROCESSES), str(k)]
            with log.open("w") as out:
                workers.append(
                    subprocess.Popen(
                        command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT
                    )
                )
        codes = []
        try:
            codes = [worker.wait(TIMEOUT) for worker in workers]
        except subprocess.TimeoutExpired:
            codes.append("time-out")
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    said = "\n".join(f"--- {log.name}\n{log.read_text()[-4000:]}" for log in logs)
    assert codes == [0] * NUM_PROCESSES, f"exit codes {codes}\n{said}"
    for log in logs:
        for name in CASES:
            assert f"{name}: agrees on 4 devices" in log.read_text(), said
