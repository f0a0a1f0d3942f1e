"""What every package stands on: devices and hosts, precision, whole files, processes, the terminal."""
