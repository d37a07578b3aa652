"""Temperature heads on a run that is done: fitted to its frozen model, and compared."""

from calibtrain.posthoc.fit import fit_temperature_head

__all__ = ["fit_temperature_head"]
