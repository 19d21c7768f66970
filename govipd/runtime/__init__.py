"""The daemon at work: the event loop of the process, the groups, and what they report."""
