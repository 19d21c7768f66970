"""The configuration file: its records, how it is read, and what it may say."""
