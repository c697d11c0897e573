"""Logarithms that densities are made of."""

from __future__ import annotations

import math

LOG_2 = math.log(2)
LOG_PI = math.log(math.pi)
LOG_2PI = math.log(2 * math.pi)
