"""The first wrong step as a folder, and judged again from it."""
