"""What is written about the code can be read in a terminal."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from command_examples import COMMANDS
from readme_pictures import COMMANDS as MADE_BY
from readme_pictures import PICTURES
from shown import agrees, commands, printed, rewritten

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/learn/*.md"), *ROOT.glob("golden/*.md")]
)
WIDEST = 140


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_tables_are_narrow(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("|") and len(line) > WIDEST] == []


def test_what_the_readme_links_to_is_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)#]+)", text) + re.findall(r"^\[\w+\]: (\S+)", text, re.MULTILINE)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_has_a_small_picture_at_each_door_and_a_command_for_it() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, made_by in MADE_BY.items():
        assert f"docs/pictures/{name}.png" in text
        assert (PICTURES / f"{name}.png").stat().st_size < 200_000
        assert all(shlex.split(command)[1] in COMMANDS for command in made_by)


PAGE = """
```bash
cat no-such-file 2> /dev/null
# exit 1
A=1.5e-07; for each in a b; do echo $each $A; done
# a 2.5e-06
# b…
seq 9
# 1
# …
# 9
echo right
# wrong
```

```bash
# by hand
exit 7
```
"""


def test_what_a_page_shows_is_compared_with_what_is_printed() -> None:
    shown = list(commands(PAGE))
    ran = printed(shown)
    assert [agrees(*pair) for pair in zip(shown, ran, strict=True)] == [True, True, True, False]
    assert rewritten(PAGE, shown, ran) == PAGE.replace("# wrong", "# right")
