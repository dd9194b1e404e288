"""Two jobs at once on the same cores, as a worker runs them by default, against one alone.

    python -m benchmarks.side_by_side

Each is a process that takes training steps of a ResNet-18 on 64 images of 32x32, on all cores: with torch's defaults,
and in the environment that a job's process is given. Steps a second in short rounds, in turn.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import machine, results
from worker.cores import usable_cores
from worker.sandbox import SPINS, environment

FILE = results.FOLDER / "side_by_side.json"
ROUNDS, SECONDS = 5, 6.0
STEPS = """
import sys, time
import torch, torchvision

network = torchvision.models.resnet18(num_classes=10).to(memory_format=torch.channels_last)
images, labels = torch.rand(64, 3, 32, 32), torch.randint(0, 10, (64,))
images = images.to(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(network.parameters(), 0.01)

def step():
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(network(images), labels).backward()
    optimizer.step()

step()
print("ready", flush=True)
sys.stdin.readline()
start, steps = time.monotonic(), 0
while time.monotonic() - start < float(sys.argv[1]):
    step()
    steps += 1
print(steps / (time.monotonic() - start))
"""

Rates = dict[str, dict[str, list[float]]]


def together(processes: int, variables: dict[str, str]) -> float:
    """Steps a second of so many processes that run at once, summed."""
    command = [sys.executable, "-c", STEPS, str(SECONDS)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables)
        for _ in range(processes)
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return sum(float(process.communicate()[0]) for process in running)


def measured() -> Rates:
    with tempfile.TemporaryDirectory() as folder:
        job = environment(os.environ, Path(folder), usable_cores())
        settings = {
            "torch's defaults": {name: value for name, value in job.items() if name != "GOMP_SPINCOUNT"},
            f"a job's ({SPINS} spins)": job,
        }
        rates: Rates = {name: {"alone": [], "two": []} for name in settings}
        for _ in range(ROUNDS):
            for name, variables in settings.items():
                rates[name]["alone"].append(together(1, variables))
                rates[name]["two"].append(together(2, variables))
    return rates


def table(rates: Rates) -> Table:
    shown = Table(title="Training steps a second, median (least to most)")
    for heading in ("environment", "one alone", "two at once, together", "together / alone"):
        shown.add_column(heading, justify="right")
    for name, found in rates.items():
        alone, two = (statistics.median(found[key]) for key in ("alone", "two"))
        spans = [f"{min(found[key]):.2f} to {max(found[key]):.2f}" for key in ("alone", "two")]
        shown.add_row(name, f"{alone:.2f} ({spans[0]})", f"{two:.2f} ({spans[1]})", f"{two / alone:.2f}")
    return shown


def main() -> None:
    start = time.monotonic()
    rates = measured()
    contents: dict[str, Any] = {"machine": machine.describe("torch"), "rows": rates}
    results.write(FILE, {**contents, "seconds": round(time.monotonic() - start)}, [])
    Console().print(table(rates))


if __name__ == "__main__":
    main()
