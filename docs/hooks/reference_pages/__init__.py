"""The pages that are made from the code: extension points, configuration, presets, command line and API."""
