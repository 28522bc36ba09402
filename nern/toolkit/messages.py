"""Helpers for error messages."""

from nern.support.messages import did_you_mean as did_you_mean
