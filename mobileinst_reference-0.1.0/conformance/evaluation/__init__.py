"""The benchmarks' own evaluations, COCO and YouTube-VIS, and comparing two result files."""
