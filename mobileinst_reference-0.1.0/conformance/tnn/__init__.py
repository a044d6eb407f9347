"""TNN as a candidate: its files, their evaluation in float64, conversion traps, dumps and runners."""
