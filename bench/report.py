"""results.md."""
from pathlib import Path
from bench.records import Context, Record
def report(directory: Path, records: list[Record], context: Context) -> None:
    """Later."""
