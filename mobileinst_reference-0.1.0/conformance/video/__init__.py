"""Following a video: frames read, networks run, tracks written, kernel reuse timed."""
