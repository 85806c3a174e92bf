"""Check that a block or a network of yours keeps what this package guarantees: `check_reversible`."""

from revmodels.testing.check import Finding, Report, check_reversible

__all__ = ["Finding", "Report", "check_reversible"]
