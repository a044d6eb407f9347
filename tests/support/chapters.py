"""The chapters of docs/learn: run again, and compared with what is printed, or printed anew.

``python tests/support/chapters.py`` compares; ``--write`` prints anew, figures too; ``--notebooks FOLDER``
writes notebooks. Needs the extra ``learn``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
LEARN = ROOT / "docs" / "learn"
OUTPUT = re.compile(r"\n<!-- printed -->\n\n```\n(.*?)```\n", re.DOTALL)
CELL = re.compile(r"^```python\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+\.?\d*(?:e[-+]?\d+)?")


def pages() -> list[Path]:
    """Return the pages that are run."""
    return sorted(path for path in LEARN.glob("*.md") if "```python" in path.read_text(encoding="utf-8"))


def stripped(text: str) -> str:
    """Return a page without what was printed."""
    return OUTPUT.sub("", text)


def printed(text: str) -> list[str]:
    """Return what a page says its cells print, one for each cell, empty if nothing."""
    outputs = []
    for cell in CELL.finditer(text):
        found = OUTPUT.match(text, cell.end())
        outputs.append(found[1] if found else "")
    return outputs


def run(path: Path) -> list[str]:
    """Run a page as a notebook and return what each cell prints."""
    import jupytext
    from nbclient import NotebookClient

    notebook = jupytext.reads(stripped(path.read_text(encoding="utf-8")), fmt="md")
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": ROOT}}
    ).execute()
    return [_streams(cell) for cell in notebook.cells if cell.cell_type == "code"]


def _streams(cell: Any) -> str:
    text = "".join(
        each.text for each in cell.outputs if each.output_type == "stream" and each.name == "stdout"
    )
    return "".join(f"{line.rstrip()}\n" for line in text.strip("\n").splitlines())


def written(text: str, outputs: list[str]) -> str:
    """Return a page with what its cells print."""
    left = iter(outputs)

    def with_output(cell: re.Match[str]) -> str:
        made = next(left)
        return cell[0] + (f"\n<!-- printed -->\n\n```\n{made}```\n" if made else "")

    return CELL.sub(with_output, stripped(text))


COUNTEREXAMPLE = re.compile(r"(not yet)\. For .*\n  expected .*\n")
"""Which one is found may change with Hypothesis; the mistake that is named may not."""


def same(one: str, other: str) -> bool:
    """Tell whether two texts are equal but for counterexamples and the last digits of their numbers."""
    one, other = (COUNTEREXAMPLE.sub(r"\1\n", text) for text in (one, other))
    if NUMBER.sub("#", one) != NUMBER.sub("#", other):
        return False
    numbers = ([float(each) for each in NUMBER.findall(text)] for text in (one, other))
    return bool(np.allclose(*numbers, rtol=1e-3, atol=1e-6))


def figures() -> dict[str, Any]:
    """Return every picture of the pages by its file's name."""
    from conformance.teaching.lesson import figure, mistake, without_the_enhancer

    made = {f"{place:02}.png": figure(place) for place in range(11)}
    made |= {f"{place:02}-wrong.png": mistake(place) for place in range(11)}
    return made | {"why-enhancer.png": without_the_enhancer()}


def drawings() -> dict[str, str]:
    """Return every drawing of the pages, as SVG, by its file's name."""
    from conformance.teaching.drawings import decoders, enhancer, one_to_one, reuse

    return {
        "why-decoders.svg": decoders(),
        "why-enhancer.svg": enhancer(),
        "why-one-to-one.svg": one_to_one(),
        "why-reuse.svg": reuse(),
    }


def write_figures() -> None:
    """Write the pictures, in 64 colours, and the drawings."""
    for name, picture in figures().items():
        Image.fromarray(picture).quantize(64).save(LEARN / "figures" / name, optimize=True)
    for name, text in drawings().items():
        (LEARN / "figures" / name).write_text(text, encoding="utf-8")


def write_notebooks(folder: Path) -> None:
    """Write the pages as notebooks."""
    import jupytext

    folder.mkdir(parents=True, exist_ok=True)
    for path in pages():
        notebook = jupytext.reads(stripped(path.read_text(encoding="utf-8")), fmt="md")
        jupytext.write(notebook, folder / f"{path.stem}.ipynb")
    target = folder / "figures"
    if not target.exists():
        target.symlink_to(LEARN / "figures")


def main(words: list[str]) -> int:
    """Do what the words say; 1 if a page is stale."""
    if words[:1] == ["--notebooks"]:
        write_notebooks(Path(words[1]))
        return 0
    chosen = [LEARN / word for word in words if word != "--write"] or pages()
    if "--write" in words and len(words) == 1:
        write_figures()
    stale = []
    for path in chosen:
        text, outputs = path.read_text(encoding="utf-8"), run(path)
        if "--write" in words:
            path.write_text(written(text, outputs), encoding="utf-8")
        elif not all(map(same, printed(text), outputs)):
            stale.append(path.name)
    for name in stale:
        print(f"{name} is stale; write it anew with --write")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
