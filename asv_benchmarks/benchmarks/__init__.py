"""asv benchmarks of SnapDB: each cell of the comparison table that is ours."""
