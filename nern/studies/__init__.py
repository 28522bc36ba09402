"""What can be learnt from finished runs (Ashkenazi et al. 2023, sec. 5, appendix F and the figures)."""
