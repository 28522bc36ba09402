"""The plugins that ship with nern: a folder for each extension point, a small module for each plugin."""
