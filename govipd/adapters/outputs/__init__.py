"""Metrics for Prometheus, and hooks: commands of the operator."""
