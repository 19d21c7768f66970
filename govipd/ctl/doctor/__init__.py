"""What `govipctl doctor` looks at: one module for each part of a machine's surroundings."""
