"""A module that is run as a program: what is wrong is said in one line, and ends it with exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from refimpl.errors import MobileInstError


def end_with(main: Callable[[], int | None]) -> NoReturn:
    """Run a program and end with the exit code that it returns, 0 for none; 2 if it could not be run."""
    try:
        code = main()
    except (MobileInstError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    sys.exit(code or 0)
