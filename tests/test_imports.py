"""The rules of who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "guided": {"guided"},
    "kernels": {"kernels"},
    "engine_core": {"engine_core", "guided", "kernels"},
    "server": {"server", "engine_core", "guided"},
    "model_store": {"model_store", "server", "engine_core"},
    "offline": {"offline", "server", "engine_core", "llm", "outputs", "pooling_outputs", "prompt_input"},
}
LAYERS = {
    "guided": ["automata", "masks", "languages", "json_schema", "grammars"],
    "server": [
        *("protocol", "http", "workers", "constraints", "engine_link", "tools", "prompts", "admission", "generation"),
        *("endpoints", "processes", "command_line"),
    ],
    "engine_core": ["scheduling", "constraints", "model", "pooling"],
}
"""The folders within a folder: each imports only from those before it, and from the files beside them all."""


def _imported_folders(file: Path) -> Iterator[str]:
    """Folders of the package that a file in a folder imports from, by its relative imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            depth = len(file.relative_to(ROOT).parts) - 1
            if node.level > depth:
                names = [node.module] if node.module else [alias.name for alias in node.names]
                yield from (name.split(".")[0] for name in names)
            elif node.level:
                yield file.relative_to(ROOT).parts[0]
            elif node.module and node.module.split(".")[0] == "zqserve":
                pytest.fail(f"{file.relative_to(ROOT)} imports the package by its name; inside, imports are relative")


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_one_way(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    for file in files:
        wrong = set(_imported_folders(file)) - MAY_IMPORT[folder]
        assert not wrong, f"{file.relative_to(ROOT)} imports from {wrong}"


@pytest.mark.parametrize("folder", LAYERS)
def test_imports_within_a_folder_point_one_way(folder: str) -> None:
    layers = LAYERS[folder]
    assert {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")} == set(layers)
    for number, layer in enumerate(layers):
        for file in (ROOT / folder / layer).glob("*.py"):
            for node in _imports_when_run(ast.parse(file.read_text())):
                wrong = node.level == 2 and (node.module or "").split(".")[0] in layers[number + 1 :]
                assert not wrong, f"{file.relative_to(ROOT)} imports from {node.module}"


def _imports_when_run(tree: ast.Module) -> Iterator[ast.ImportFrom]:
    """But for those that only type checkers see."""
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in typing:
            yield node


def test_every_package_is_built_and_every_file_is_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    packages = project["setuptools"]["packages"]
    parts = [package.split(".")[1:] for package in packages]
    folders = {names[0] for names in parts if names}
    for folder in folders:
        found = {file.parent.relative_to(ROOT).parts for file in (ROOT / folder).rglob("__init__.py")}
        assert found == {tuple(names) for names in parts if names[:1] == [folder]}
    assert {file.name for file in ROOT.glob("*.py")} | folders == set(project["pyright"]["include"])


@pytest.mark.parametrize(
    "module",
    [
        "zqserve",
        "zqserve.server.app",
        "zqserve.server.command_line.cli",
        "zqserve.server.processes.launcher",
        "zqserve.model_store.cli",
        "zqserve.server.engine_link.engine_client",
        "zqserve.engine_core.engine_process",
        "zqserve.engine_core.fork_server",
    ],
)
def test_the_front_end_starts_without_torch(module: str) -> None:
    check = (
        f"import sys, {module}; print(*[name for name in ('torch', 'transformers', 'numba') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
