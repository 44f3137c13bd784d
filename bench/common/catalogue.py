"""Which benches there are, found without importing any of them."""

from __future__ import annotations

import ast
from pathlib import Path

BENCH_FOLDER = Path(__file__).parent.parent


def benches() -> dict[str, str]:
    """Name and first line of each bench, in alphabetical order."""
    found: dict[str, str] = {}
    for path in sorted(BENCH_FOLDER.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        is_bench = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
        if is_bench and path.stem != "__main__":
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found
