"""The predictor for codes: the kernel that a code gives, plus a correction computed from the kernel's coordinate."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import attrs
from torch import Tensor, nn

from nern import ConfigError, Predictor, at_least, hookimpl, option

log = logging.getLogger("nern")


class Sum(nn.Module):
    """Takes the kernel in the first columns of the embedding and adds a perceptron of the other columns, if there are any."""

    def __init__(self, inputs: int, outputs: int, options: Codes) -> None:
        super().__init__()
        self.outputs = outputs
        self.trained_by_embedding = True  # the embedding holds the codes
        self.correction: nn.Sequential | None = None
        if options.hidden and inputs > outputs:
            layers: list[nn.Module] = [nn.Linear(inputs - outputs, options.hidden), nn.GELU()]
            for _ in range(options.layers - 2):
                layers += [nn.Linear(options.hidden, options.hidden), nn.GELU()]
            last = nn.Linear(options.hidden, outputs)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.correction = nn.Sequential(*layers, last)

    def forward(self, embedded: Tensor) -> Tensor:
        """[n, k² + d] → [n, k²]."""
        coded = embedded[:, : self.outputs].float()
        return coded if self.correction is None else coded + self.correction(embedded[:, self.outputs :]).float()

    def whole(self, embedding: nn.Module) -> Tensor | None:
        """All weights [weights] at once, from codes alone; None where coordinates correct the codes, or the embedding has no codes."""
        if self.correction is not None or not hasattr(embedding, "weights"):
            return None
        weights: Tensor = embedding.weights()  # type: ignore[operator]
        return weights.float()


@attrs.frozen
class Codes(Predictor):
    """A kernel from its code and its coordinate, for the embedding `codes`.

    A linear map turns the code into a kernel; a multilayer perceptron of the coordinate, if there is one, adds a correction.
    """

    hidden: int = option(0, help="hidden size of the perceptron of the coordinate, 0 for none", check=at_least(0))
    layers: int = option(5, help="number of linear layers of the perceptron", check=at_least(2))

    def build(self, inputs: int, outputs: int) -> nn.Module:
        if inputs < outputs:
            raise ConfigError(f"predictor codes: needs the embedding 'codes', whose vectors begin with {outputs} numbers; got {inputs}")
        return Sum(inputs, outputs, self)

    def initialise(self, module: nn.Module, embedded: Tensor, kernels: Tensor) -> None:
        """Refuse a perceptron that gets no coordinate, and warn of a coordinate that nothing uses.

        Raises:
            ConfigError: there is a perceptron, and the embedding gives nothing but codes.
        """
        coordinate = embedded.shape[1] - kernels.shape[1]
        if self.hidden and not coordinate:
            raise ConfigError(
                f"predictor.hidden is {self.hidden}, but the perceptron of the coordinate gets no coordinate, because the embedding has "
                "no frequencies; set embedding.frequencies, or predictor.hidden to 0"
            )
        if coordinate and not self.hidden:
            log.warning(
                "nern: predictor codes: nothing uses the %d numbers that the embedding gives after the code of a kernel; set "
                "predictor.hidden above 0 for a perceptron of them, or embedding.frequencies to 0", coordinate,
            )  # fmt: skip


@hookimpl
def nern_predictors() -> Mapping[str, type[Predictor]]:
    return {"codes": Codes}
