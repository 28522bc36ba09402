"""What bases are made from: weights of some rows, and integers packed into bits."""

from nern.kernels.weight_places import WeightPlaces as WeightPlaces
from nern.support.bits import pack_integers as pack_integers
from nern.support.bits import unpack_integers as unpack_integers
