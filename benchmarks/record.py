"""What every benchmark writes beside its figures: machine, versions, date, commit and the script itself."""

import json
import platform
import subprocess
from datetime import date
from pathlib import Path

from zoo.training.hardware import environment


def write(script: str, results: dict, **settings) -> None:
    """Writes the record of `script` (its `__file__`) under the same name with .json."""
    record = {
        "date": date.today().isoformat(),
        "commit": commit(),
        "uncommitted": _git("status", "--porcelain").splitlines(),
        "processor": processor(),
        "environment": environment(),
        **settings,
        "results": results,
        "script": Path(script).read_text(encoding="utf-8"),
    }
    Path(script).with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def commit() -> str:
    """The commit that is measured."""
    return _git("rev-parse", "HEAD")


def _git(*words):
    return subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()


def processor() -> str:
    """The processor's name, where the system tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
