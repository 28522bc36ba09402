"""The command line: each verb is a few lines over the public interface."""
