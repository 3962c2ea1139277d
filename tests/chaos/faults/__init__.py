"""Every fault that can strike a stage, one file a kind; `ALL` has them by name."""

from tests.chaos.faults.fault import Fault

__all__ = ["Fault"]
