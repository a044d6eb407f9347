"""The pictures of the README, each as its command makes it: ``make pictures``.

Needs Chromium, chromedriver and the extra ``browser``.
"""

from __future__ import annotations

import io
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from headless import chromium, show_as
from PIL import Image

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
WIDTH = 760
SCREEN = (1240, 900)
MISTAKE = "resize/corners aligned"
COMMANDS = {
    "judged": (
        f"mobileinst faults '{MISTAKE}' --network topformer-tiny --write faulty",
        "mobileinst verify faulty/resize-corners-aligned.onnx --model topformer-tiny --set dim=32 "
        "--set num_queries=7 --set num_classes=5 --weights faulty/topformer-tiny.safetensors "
        "--input faulty/topformer-tiny.npy --html judged.html",
    ),
    "tracked": ("mobileinst track --demo --count 24 --output tracked",),
    "walk": ("mobileinst walk --html walk.html",),
}
"""Picture → the commands that make it."""


def run(command: str, folder: Path) -> None:
    """Run a command of ours in a folder; a verdict of 1 is what a faulty model is for."""
    program = "import sys; from conformance.cli import main; sys.argv[0] = 'mobileinst'; main()"
    words = [sys.executable, "-P", "-c", program, *shlex.split(command)[1:]]
    finished = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    if finished.returncode not in (0, 1):
        sys.exit(f"{command}: {finished.stderr}")


def made(folder: Path) -> dict[str, Image.Image]:
    """Run all commands, and return their pictures."""
    for commands in COMMANDS.values():
        for command in commands:
            run(command, folder)
    shots = {"tracked": Image.open(folder / "tracked" / "contact_sheet.png").convert("RGB")}
    with chromium(folder / "profile") as driver:
        show_as(driver, SCREEN, "light")
        for name, part in (("judged", "main"), ("walk", "#picture-button")):
            driver.get((folder / f"{name}.html").as_uri())
            time.sleep(3)  # the walk draws itself after it is loaded
            driver.execute_script("document.querySelector(arguments[0]).scrollIntoView()", part)
            driver.execute_script("scrollBy(0, -150)")
            shots[name] = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    return shots


def main() -> None:
    """Write the pictures, small."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        for name, shot in made(Path(place)).items():
            size = (WIDTH, round(shot.height * WIDTH / shot.width))
            small = shot.resize(size, Image.Resampling.LANCZOS).quantize(96)
            small.save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
