"""The faces of a report: an HTML page with its figures, JUnit XML, Markdown."""
