"""Files on a disk or in a bucket, written whole or not at all; locks and JSON."""
