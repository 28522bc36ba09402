"""What a check says of a component with a mistake."""

from __future__ import annotations

from typing import Any

import pytest

from nern import testing


def fails(check: str, component: Any, message: str, *more: Any) -> None:
    with pytest.raises(AssertionError) as error:
        getattr(testing, f"check_{check}")(component, *more)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
