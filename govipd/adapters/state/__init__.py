"""Files that outlive a process: the restart state, the drain file, the host's name."""
