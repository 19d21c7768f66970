"""Health checks of the local service."""
