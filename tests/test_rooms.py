"""The arrows between rooms: read from every import, those inside functions included."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("zoo", "augment", "callbacks", "tuning")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# room -> rooms that it may import; files directly in zoo/ that all rooms share are a room of their own
ARROWS = {
    "augment": set(),
    "callbacks": set(),
    "tuning": {"zoo", "zoo.shared", "augment", "callbacks"}
    | {f"zoo.{room}" for room in ("models", "data", "transfer", "training", "evaluation", "export")},
    "zoo.shared": set(),
    "zoo.models": {"zoo.shared"},
    "zoo.data": {"zoo.shared"},
    "zoo.transfer": {"zoo.shared", "zoo.data", "zoo.models", "augment", "callbacks"},
    "zoo.evaluation": {"zoo.shared", "zoo.data", "zoo.models", "augment", "callbacks"},
    "zoo.export": {"zoo.shared", "zoo.data", "zoo.models"},
    "zoo.training": {"augment", "callbacks"}
    | {f"zoo.{room}" for room in ("shared", "evaluation", "export", "transfer", "data", "models")},
    "zoo": {f"zoo.{room}" for room in ("models", "data", "transfer", "training", "evaluation", "export")},
    "zoo.command": {"zoo.shared", "zoo.models", "zoo.training"},
    "zoo.cli": {"zoo", "zoo.command", "tuning"}
    | {f"zoo.{room}" for room in ("shared", "models", "data", "transfer", "training", "evaluation", "export")},
}
TENSORFLOW = {
    "zoo/data/pipeline.py",
    "zoo/data/decode.py",
    "zoo/training/hardware.py",
    "callbacks/autodiff.py",
    "zoo/export",
}
SHARED = {"zoo.files", "zoo.pages", "zoo.progress", "zoo.wording"}


def modules(path):
    """Every module that a file imports, as a dotted name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute, so that this test can read them"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module):
    """The room that a module of ours belongs to."""
    parts = module.split(".")
    if parts[0] != "zoo" or len(parts) == 1:
        return parts[0]
    name = ".".join(parts[:2])
    if name in SHARED:
        return "zoo.shared"
    return name if name in ARROWS else "zoo"  # zoo.create and its like come from the public face


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_follow_the_arrows(path):
    here = room(module_of(path))
    for module in modules(path):
        if module.split(".")[0] in PACKAGES:
            there = room(module)

            assert there == here or there in ARROWS[here], f"{here} must not import {there} ({module})"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_named_files_import_tensorflow_and_keras_tuner(path):
    name = path.relative_to(ROOT).as_posix()
    tops = {module.split(".")[0] for module in modules(path)}
    if "tensorflow" in tops:
        assert any(name == allowed or name.startswith(f"{allowed}/") for allowed in TENSORFLOW)
    if "keras_tuner" in tops:
        assert name.startswith("tuning/")


def test_nothing_imports_the_command_line():
    for path in FILES:
        assert "zoo.cli" not in set(modules(path)), path


def test_every_folder_in_the_zoo_is_a_known_room():
    rooms = {f"zoo.{path.name}" for path in (ROOT / "zoo").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= set(ARROWS)


def test_the_reader_sees_imports_inside_functions(tmp_path):
    source = tmp_path / "file.py"
    source.write_text("def f():\n    from zoo.training import run\n    import tensorflow.io\n")
    assert {"zoo.training", "zoo.training.run", "tensorflow.io"} <= set(modules(source))
