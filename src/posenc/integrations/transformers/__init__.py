"""Read Hugging Face configs into encodings, write encodings back, and change live models.

Only live models need transformers.
"""

from posenc.integrations.patch import Patch as Patch
from posenc.integrations.transformers.description.description import Description as Description
from posenc.integrations.transformers.description.description import LayerGroup as LayerGroup
from posenc.integrations.transformers.description.reader import describe as describe
from posenc.integrations.transformers.live.accelerate import accelerate as accelerate
from posenc.integrations.transformers.live.check import check as check
from posenc.integrations.transformers.live.extend import extend as extend
from posenc.integrations.transformers.live.findings import Finding as Finding
from posenc.integrations.transformers.live.findings import Report as Report
from posenc.integrations.transformers.live.replace import replace as replace
from posenc.integrations.transformers.to_transformers import to_transformers as to_transformers
