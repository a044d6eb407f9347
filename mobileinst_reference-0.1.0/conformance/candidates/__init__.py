"""Who is judged: one module for each runtime, the process they run in, the registry of kinds."""
