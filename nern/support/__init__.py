"""The version, files, cache, seeds, threads, bits and messages; it knows nothing of networks."""
