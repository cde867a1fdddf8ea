"""The benchmark: fixed rows, contenders, interleaved rounds, figures and ratios (``docs/benchmarks.md``)."""
