"""Several machines with systemd as PID 1 inside this one, a client that measures, and a switch between them."""
