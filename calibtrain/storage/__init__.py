"""Where bytes lie: places (disk or bucket), files written whole or not at all, JSON, checksums."""
