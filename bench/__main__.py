"""The one face of all benches: `python -m bench` lists them, `python -m bench NAME ...` runs one.

A bench is a file of this folder with a function `main`, which reads `sys.argv`; the first line of its docstring is what
the list says. So a new one needs no entry anywhere, and each is a script of its own as well.
"""

from __future__ import annotations

import importlib
import sys

from zqserve.bench.common.catalogue import benches


def main() -> None:
    """Run the bench that the command line names, or list all."""
    found = benches()
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("python -m bench NAME [options]; each tells its options with --help\n")
        width = max(map(len, found))
        for name, line in found.items():
            print(f"  {name:{width}}  {line}")
        return
    name = sys.argv[1].replace("-", "_")
    if name not in found:
        raise SystemExit(f"There is no bench {sys.argv[1]!r}; the names are {', '.join(found)}.")
    sys.argv = [f"python -m bench {name}", *sys.argv[2:]]
    raise SystemExit(importlib.import_module(f"zqserve.bench.{name}").main())


if __name__ == "__main__":
    main()
