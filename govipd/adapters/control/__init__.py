"""The control socket: the varlink protocol, and the methods that the daemon serves over it."""
