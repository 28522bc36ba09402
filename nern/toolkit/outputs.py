"""Kinds of outputs for tasks, and the metrics that ship with nern."""

from nern.outputs.kinds import AnyOutputs as AnyOutputs
from nern.outputs.kinds import ClassLogits as ClassLogits
from nern.outputs.kinds import Measured as Measured
from nern.outputs.kinds import Numbers as Numbers
from nern.outputs.kinds import OutputKind as OutputKind
from nern.outputs.kinds import Parts as Parts
from nern.outputs.kinds import PixelLogits as PixelLogits
from nern.outputs.kinds import kind_of_outputs as kind_of_outputs
from nern.outputs.metrics import Agreement as Agreement
from nern.outputs.metrics import DistanceFromOriginal as DistanceFromOriginal
from nern.outputs.metrics import Divergence as Divergence
from nern.outputs.metrics import FunctionMetric as FunctionMetric
from nern.outputs.metrics import MeanIoU as MeanIoU
from nern.outputs.metrics import MeanSquaredError as MeanSquaredError
from nern.outputs.metrics import RelativeDistance as RelativeDistance
from nern.outputs.metrics import Top1 as Top1
from nern.outputs.metrics import Top5 as Top5
from nern.outputs.metrics import rows_of as rows_of
from nern.outputs.nested import map_tensors as map_tensors
from nern.outputs.nested import tensors_of as tensors_of
