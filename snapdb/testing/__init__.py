"""Tools for testing programs that keep data in SnapDB: file systems in memory that record, fail and crash."""
