"""Our own claims, measured: score, false alarms, benchmarks, costs, trials of the bounds."""
