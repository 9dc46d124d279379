"""Every command and every line of Python in the README, run as a reader would in a folder with photos."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def reader(tmp_path, zoo_data, keras_home):
    """A folder as the README supposes it: `photos` of ants and bees, a `bee.jpg`, and the command on the path."""
    for label, source in (("ant", "ants"), ("bee", "bees")):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for file in sorted((zoo_data / "hymenoptera" / "train" / source).glob("*.jpg"))[:14]:
            with Image.open(file) as picture:
                picture.resize((240, 200)).save(tmp_path / "photos" / label / file.name)
    shutil.copy(next((tmp_path / "photos" / "bee").iterdir()), tmp_path / "bee.jpg")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"cwd": tmp_path, "env": {**os.environ, "PATH": path}, "capture_output": True, "text": True}


def test_make_targets_of_the_readme_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE))
    named |= {word for words in re.findall(r"`make ([a-z -]+)`", text) for word in words.split()}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "test-slow", "test-faults", "lint", "types"} <= named <= targets


@pytest.mark.slow
def test_the_readme_does_what_it_says(reader):
    commands = [line.split("#")[0].strip() for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
    commands = [line for line in commands if line.startswith("zoo ")]
    assert len(commands) == 6
    for line in commands:
        done = subprocess.run(["bash", "-c", line], timeout=300, **reader)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    scripts = [text for kind, text in BLOCKS if kind == "python"]
    assert len(scripts) == 8
    for text in scripts:
        done = subprocess.run([sys.executable, "-W", "error::FutureWarning", "-c", text], timeout=300, **reader)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
