"""Contract checks for plugin authors: one function for each extension point, to be called in pytest or anywhere else.

Each function takes a component (an instance, with the options to be checked). It raises AssertionError with a message that
says which part of the contract in `nern.interfaces` the component breaks. The built-ins pass the same checks.
"""

from nern.testing.architectures import check_architecture
from nern.testing.bases import check_base
from nern.testing.embeddings import check_embedding
from nern.testing.launchers import check_launcher
from nern.testing.losses import check_loss
from nern.testing.metrics import check_metric, check_outputs
from nern.testing.observers import check_observer
from nern.testing.optimizers import check_optimizer
from nern.testing.predictors import check_predictor
from nern.testing.samplers import check_sampler
from nern.testing.smoothers import check_smoother
from nern.testing.tasks import check_task

__all__ = [
    "check_architecture",
    "check_base",
    "check_embedding",
    "check_launcher",
    "check_loss",
    "check_metric",
    "check_observer",
    "check_optimizer",
    "check_outputs",
    "check_predictor",
    "check_sampler",
    "check_smoother",
    "check_task",
]
