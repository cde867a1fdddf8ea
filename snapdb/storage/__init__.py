"""The file under a database: pages of bytes, a catalog, a write-ahead log and recovery. It knows no row or column."""
