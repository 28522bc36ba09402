"""Paths through kernels, for smoothers."""

from nern.kernels.greedy_path import greedy_path as greedy_path
from nern.kernels.greedy_path import greedy_paths as greedy_paths
from nern.kernels.two_opt import shorter_path as shorter_path
from nern.support.threads import advance as advance
