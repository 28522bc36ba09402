"""Helpers for bases: the weights of some rows of the grid, and integers packed into bits."""

from nern.kernels.weight_places import WeightPlaces as WeightPlaces
from nern.support.bits import pack_integers as pack_integers
from nern.support.bits import unpack_integers as unpack_integers
