"""A candidate judged on thousands of pictures: screened first, judged in full near a limit."""
