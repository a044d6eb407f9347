"""Models on their way to the phones' runtimes: their own converters called, and what those wrote read."""
