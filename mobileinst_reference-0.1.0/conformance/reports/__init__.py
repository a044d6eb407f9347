"""A verdict's records and their faces: terminal, HTML, JUnit, Markdown, JSON; charts and figure."""
