"""`mobileinst verify --recorded FOLDER`: the step that --reproduce wrote, judged again."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.cli import options
from conformance.cli.job import Job
from conformance.cli.report_files import ReportFiles
from conformance.cli.reproduction import Recorded
from conformance.cli.verify_graph import print_graph_report
from conformance.reports.report import Report
from conformance.reproduction.recorded_step import judge_folder


@dataclass(frozen=True, kw_only=True)
class RecordedVerdict(Job):
    """Judge again what a folder holds."""

    doing = "a recorded step (--recorded FOLDER)"
    chosen_by = ("recorded",)

    all_steps: options.AllSteps = False
    recorded: Recorded = None
    files: ReportFiles

    def check(self) -> None:
        """Refuse options about a table that is not printed."""
        self.files.check_printed("--all-steps", self.all_steps)

    def run(self) -> int:
        """Judge, write and print; 0 if the step is right, else 1."""
        report = self.report()
        if self.files.write_report(report, self.command_line):
            print_graph_report(report, self.all_steps)
        return 0 if report.verdict == "pass" else 1

    def report(self) -> Report:
        """Judge the step (errors: those of `judge_folder`)."""
        assert self.recorded is not None
        return judge_folder(self.recorded)
