"""etcd's API: the client, one gRPC connection, and the translation of messages."""
