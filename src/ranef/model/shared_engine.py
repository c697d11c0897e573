"""A design, and what is computed of it once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ranef.design.design import Design, full_rank
from ranef.families.family import Family
from ranef.likelihood.generalized.glmm import Generalized, prepare
from ranef.likelihood.linear.crossproducts import CrossProducts, cross_products


@dataclass(frozen=True, eq=False)
class Data:
    """A design, and what is computed of it once, whatever the priors.

    Attributes
    ----------
    design : Design
    family : Family
    """

    design: Design
    family: Family

    @cached_property
    def estimable(self) -> Design:
        """The design without fixed columns that are combinations of others."""
        return full_rank(self.design)

    @cached_property
    def cross(self) -> CrossProducts:
        """The cross-products of the estimable design."""
        return cross_products(self.estimable)

    @cached_property
    def generalized(self) -> Generalized:
        """The estimable design in the basis of a generalised model."""
        return prepare(self.estimable, self.family)
