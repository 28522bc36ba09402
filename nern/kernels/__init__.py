"""Where a kernel sits, and in which order kernels meet their coordinates (Ashkenazi et al. 2023, sec. 3.1 and 3.3, appendix D)."""
