"""Built-in bases."""
