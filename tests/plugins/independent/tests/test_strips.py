"""The contract checks, in the package's own tests."""

from nern_strips import Angle, Strips, Windows

from nern.testing import check_architecture, check_loss, check_sampler


def test_architecture():
    check_architecture(Strips())
    check_architecture(Strips(width=3, classes=2))


def test_loss():
    check_loss(Angle())
    check_loss(Angle(distance=0.1))


def test_sampler():
    check_sampler(Windows())
    check_sampler(Windows(length=7))
