"""The version, files, cache, seeds, threads, bits, messages and whose contract is broken; it knows nothing of networks."""
