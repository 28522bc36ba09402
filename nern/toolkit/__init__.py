"""Base classes and helpers for components; built-in plugins and plugins from outside use the same ones."""
