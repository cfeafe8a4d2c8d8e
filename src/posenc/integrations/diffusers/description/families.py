"""What makes the tables of rotation in the models of diffusers: the name of a class -> how it does it.

Facts are read from the modules of diffusers 0.42.1; :func:`posenc.integrations.diffusers.check` compares each row with
the module that it describes.
"""

from posenc.integrations.diffusers.description.counted_grids import COUNTED_GRIDS
from posenc.integrations.diffusers.description.given_ids import GIVEN_IDS
from posenc.integrations.diffusers.description.sequences import SEQUENCES
from posenc.integrations.diffusers.description.tables import Row

#: Class of the module, or of the model where the pipeline makes the tables -> its row.
FAMILIES: dict[str, Row] = GIVEN_IDS | COUNTED_GRIDS | SEQUENCES
