"""The election in etcd: the session, the queue, the claims, resignation and handover."""
