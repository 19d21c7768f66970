"""The control socket: varlink, and the methods that the daemon serves there."""
