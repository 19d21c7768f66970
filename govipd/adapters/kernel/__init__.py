"""The kernel: the fence in nf_tables, addresses and links over rtnetlink, frames on the wire."""
