"""systemd: units over D-Bus, sd_notify, the journal."""
