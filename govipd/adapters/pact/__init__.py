"""The pact, a peer lease between the leader and its successor: records in etcd, datagrams over UDP."""
