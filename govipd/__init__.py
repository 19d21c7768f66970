"""govipd keeps a virtual IP address (VIP) on exactly one healthy machine.

An etcd election decides who holds it, a lease enforced by the kernel bounds for how long, local health
gates decide which machine may campaign, and systemd supervises the daemon.
"""
