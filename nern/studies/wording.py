"""What figures are called in pages and pictures, and how their values are written."""

from __future__ import annotations

#: Name of a figure in results → what it is, and its unit.
FIGURES = {
    "top1": ("top-1", "%"),
    "top5": ("top-5", "%"),
    "miou": ("mean IoU", "%"),
    "agreement": ("agreement with the original", "%"),
    "kl": ("KL divergence from the original", "nats"),
    "mse": ("mean squared error", ""),
    "mse_original": ("mean squared difference from the original's outputs", ""),
    "distance": ("relative squared difference from the original's outputs", ""),
}


def called(name: str) -> str:
    """What a figure is; its own name, where it is a plugin's or the user's."""
    return FIGURES.get(name, (name, ""))[0]


def with_unit(name: str) -> str:
    """What a figure is, with its unit, for the axis of a picture."""
    return ", ".join(filter(None, FIGURES.get(name, (name, ""))))


def written(name: str, value: float | None, signed: bool = False) -> str:
    """A value with its unit, such as `91.50 %` or `0.6314`; a dash for None.

    Args:
        signed: whether the value is a difference, which has a sign; one of per cent is in points.
    """
    unit = FIGURES.get(name, ("", ""))[1]
    if value is None:
        return "—"
    sign = "+" if signed else ""
    text = f"{value:{sign}.2f}" if unit == "%" else f"{value:{sign}.4g}"
    unit = "points" if signed and unit == "%" else unit
    return f"{text} {unit}".strip().replace("-", "−") if signed else f"{text} {unit}".strip()
