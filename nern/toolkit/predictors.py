"""The first layer of a predictor, computed by look-ups instead of a stored embedding."""

from nern.representation.lookup import AxisTables as AxisTables
from nern.representation.lookup import Lookup as Lookup
from nern.representation.lookup import linear as linear
