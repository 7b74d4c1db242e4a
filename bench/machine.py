"""Which machine, which build and which versions: what stands under every table and in every JSON."""

import json
import os
import platform
import re
import subprocess
from pathlib import Path

import numpy as np
import scipy.linalg  # loaded now, so that its BLAS is among those that a limit on threads finds

from emfuse import kernels, threads

HERE = Path(__file__).parent
CONTROL_GROUPS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


def describe(peers=()):
    """The machine and the versions on it, for JSON; `peers` are (peer, version)."""
    versions = {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__}
    return {
        "cpu": cpu_model(),
        "cores": threads.thread_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "build": kernels.active(),
        "threads": 1,
        "versions": versions | {peer.name: version for peer, version in peers},
        "commit": commit(),
    }


def sentence(machine):
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores (load {machine['load']}); build {machine['build']}, "
        f"{machine['threads']} thread; {versions}; commit {machine['commit']}"
    )


def results(name):
    """Where the results of this machine stand: results/<CPU>-<cores>-cores/<name>.json."""
    cpu = re.sub(r"\b(cpu|processor)\b|\((r|tm)\)|@.*", " ", cpu_model().lower())
    folder = re.sub(r"[^a-z0-9]+", "-", f"{cpu} {threads.thread_count()} cores").strip("-")
    return HERE / "results" / folder / f"{name}.json"


def add_json(parser, name):
    """Add --json to the options of a program."""
    usual = results(name)
    text = f"write everything, with all samples; without FILE to {usual.relative_to(HERE.parent)}"
    parser.add_argument("--json", nargs="?", type=Path, const=usual, metavar="FILE", help=text)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = re.sub(r"\[[^][{}]*\]", lambda row: " ".join(row[0].split()), json.dumps(content, indent=1))  # a line a row of numbers
    path.write_text(text + "\n", encoding="utf-8")


def cpu_model():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit():
    """The commit of this repository, with "-dirty" where files differ from it."""
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def available_memory():
    """Bytes that this process may still take without swapping: what the system has, or what its control group has left."""
    return min([free_memory(), *left_to_control_groups()])


def free_memory():
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # macOS: all of it, and others want some
    except (AttributeError, ValueError, OSError):
        return 4 << 30  # Windows does not tell: be modest


def left_to_control_groups():
    for limit, used in CONTROL_GROUPS:
        try:
            yield int(Path("/sys/fs/cgroup", limit).read_text()) - int(Path("/sys/fs/cgroup", used).read_text())
        except (OSError, ValueError):  # no such group, or its limit is "max"
            continue
