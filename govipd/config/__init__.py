"""The configuration file: its records, its reader, its rules and its profiles."""
