"""An experiment: YAML files, presets and overrides become checked attrs classes."""
