"""`mobileinst walk`: a page that shows how the network computes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from conformance.cli import options
from conformance.cli.job import Job
from conformance.cli.output_files import HTML, Output, Reads
from conformance.cli.report_files import Html
from conformance.cli.run import scaled
from conformance.files import write_text
from conformance.teaching.clip import Clip, record_clip
from conformance.teaching.walk_page import walk_page
from conformance.video.frames import open_video
from refimpl import held_out
from refimpl.held_out import held_out_video
from refimpl.inference import Sizing
from refimpl.ops.operation import Array
from refimpl.scenes import LABELS, Frame, render_frame

PAGE = Path("walk.html")
FRAMES = 12


@dataclass(frozen=True, kw_only=True)
class Walk(Job):
    """Write one page that shows how the network computes, and computes its numbers again in the browser.

    It opens from a file, offline, and holds a picture or the first frames of a video as one network saw them.
    With no network given, the trained set scenes-tiny is used, which knows rendered shapes.

    [bold]Examples[/bold]

      mobileinst walk --html walk.html

      mobileinst walk street.gif --weights mine.safetensors --count 6 --html street.html
    """

    doing = "a page"

    video: Annotated[
        Path | None,
        typer.Argument(help="A picture, a video, a GIF or a folder of pictures. Default: a held-out video."),
        Reads(),
    ] = None
    count: Annotated[
        int | None, typer.Option("--count", min=1, help=f"Show the first so many frames. Default: {FRAMES}.")
    ] = None
    network: options.NetworkOptions
    size: options.Size = None
    html_file: Html = None
    force: options.Force = False

    def outputs(self) -> list[Output]:
        """Return the page, if no option names it."""
        return [] if self.html_file else [Output("--html", PAGE, HTML)]

    def run(self) -> int:
        """Record the frames, and write the page."""
        page, begun = self.html_file or PAGE, time.monotonic()
        with options.working("recording"):
            clip, names, described = self._clip()
        with options.working("writing the page"):
            text, left_out = walk_page(clip, described, names)
        write_text(page, text)
        size, taken = len(text.encode()) / 1e6, time.monotonic() - begun
        said = f"{page}: {size:.1f} MB, {len(clip.frames)} frames, in {taken:.0f} s"
        options.console.print(said, highlight=False)
        for each in left_out:
            options.console.print(f"left out: {each}", highlight=False)
        return 0

    def _clip(self) -> tuple[Clip, Sequence[str] | None, str]:
        chosen = self.network.or_trained()
        config, weights = chosen.load()
        pictures, truth = self._pictures()
        usual: Sizing = scaled(pictures[0].shape[:2], min(held_out.SIZE)) if chosen.is_trained else "phone"
        sizing = options.parse_size(self.size) or usual
        clip = record_clip(pictures, config, weights, sizing, truth if chosen.is_trained else ())
        names = LABELS if chosen.is_trained else None
        return clip, names, f"The network is {config.backbone} with {chosen.described}"

    def _pictures(self) -> tuple[list[Array], tuple[Frame, ...]]:
        """Return the frames, and what was rendered in them if nothing is given."""
        count = self.count or FRAMES
        if self.video is not None:
            return list(open_video(self.video).frames(stop=count)), ()
        scene = held_out_video(0)
        truth = tuple(render_frame(scene, index) for index in range(count))
        return [frame.picture for frame in truth], truth
