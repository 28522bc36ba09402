"""Words that many messages share."""

from nern.support.messages import did_you_mean as did_you_mean
