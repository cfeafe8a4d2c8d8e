"""`posenc diagnose`: what does an unknown rotation do?"""

from posenc.lab.diagnose.findings import Diagnosis, diagnose

__all__ = ["Diagnosis", "diagnose"]
