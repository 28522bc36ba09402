"""The version of nern."""

__version__ = "0.1.0"
