"""Mappings: how a weight is cut into kernels, for architectures that list their layers themselves.

`LayerMapping` is the plain one. With `map_layers` an architecture finds its layers, and the mapping of each, by itself.
"""

from nern.kernels.coordinates import LayerMapping as LayerMapping
from nern.networks.layers import map_layers as map_layers
from nern.networks.mappings import DepthwiseMapping as DepthwiseMapping
from nern.networks.mappings import LineMapping as LineMapping
from nern.networks.mappings import TileMapping as TileMapping
from nern.networks.mappings import TransposedMapping as TransposedMapping
from nern.networks.mappings import VolumeMapping as VolumeMapping
from nern.networks.mappings import tile_of as tile_of
