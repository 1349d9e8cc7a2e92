"""What a run is: its config, the presets and the protocols."""
