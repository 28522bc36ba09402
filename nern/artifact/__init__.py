"""The one file that a user keeps."""
