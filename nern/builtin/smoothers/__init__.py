"""Built-in smoothers."""
