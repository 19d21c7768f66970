"""The running daemon: the event loop of the process, the VIP groups, and their reports."""
