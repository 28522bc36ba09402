"""Files that are written whole or not at all."""

from nern.support.files import write_tensors as write_tensors
from nern.support.files import write_text as write_text
