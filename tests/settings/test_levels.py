"""`data.range` in words."""

from __future__ import annotations

import pytest
from snclr_jax.configs import digits

from snclr_jax.settings.check import check_config
from snclr_jax.settings.levels import FULL, parse_levels


def test_levels_are_a_pair_or_the_full_range():
    assert parse_levels("0,4096") == parse_levels("(0, 4096)") == (0.0, 4096.0)
    assert parse_levels("-1000,1e3") == (-1000.0, 1000.0)
    assert parse_levels(None) == parse_levels("full") == FULL


@pytest.mark.parametrize("text", ["", "4096", "4096,0", "0,0", "0,inf", "nan,1", "a,b"])
def test_anything_else_is_refused_with_the_config(text):
    config = digits.get_config()
    config.data.range = text
    with pytest.raises(ValueError, match=r"data\.range '.*' must be 'full', 'auto'"):
        check_config(config, devices=1)


def test_auto_is_left_to_be_measured():
    config = digits.get_config()
    config.data.range = "auto"
    check_config(config, devices=1)
