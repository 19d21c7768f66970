"""Benchmarks: figures that are measured, not tested."""
