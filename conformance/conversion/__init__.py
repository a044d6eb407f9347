"""Files of the phones' runtimes, as their own converters write them: read."""
