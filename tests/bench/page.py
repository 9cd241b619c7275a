"""Writes what a run found into the pages: docs/bench.md, its picture, and the table of README.md.

``python -m tests.bench.page [FILE]``: what stands between the markers is replaced, nothing else.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from .plot import svg
from .run import part_table, read
from .targets import summary
from .workload import RESULTS, ROOT


def replaced(page: str, name: str, text: str) -> str:
    """Return a page with what stands between the markers of ``name`` replaced.

    A page without these markers is a mistake, and ends the program.
    """
    marked = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
    if len(marked.findall(page)) != 1:
        raise SystemExit(f"the page has no markers {name}:begin and {name}:end, or several")
    return marked.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page)


def write(found: dict[str, Any], root: Path = ROOT) -> None:
    """Write all pages from the figures of a run."""
    page = root / "docs" / "bench.md"
    text = replaced(page.read_text(encoding="utf-8"), "summary", summary(found))
    for name, figures in found["parts"].items():
        text = replaced(text, name, part_table(name, figures))
    page.write_text(text, encoding="utf-8")
    (root / "docs" / "pictures" / "bench.svg").write_text(svg(found), encoding="utf-8")
    readme = root / "README.md"
    crypto = part_table("crypto", found["parts"]["crypto"])
    about = f"{crypto}\n\n{summary(found).splitlines()[-1]}"
    readme.write_text(replaced(readme.read_text(encoding="utf-8"), "bench", about), encoding="utf-8")


if __name__ == "__main__":
    write(read(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS / "bench.json"))
