"""The test suite that every encoding of the library passes; it also tests encodings of your own.

>>> import posenc
>>> check_encoding(posenc.ALiBi(num_heads=4))

:func:`checks` gives the same tests one by one, for ``pytest.mark.parametrize``.
"""

from posenc.testing.candidate import Oracle as Oracle
from posenc.testing.comparator import assert_matches_oracle as assert_matches_oracle
from posenc.testing.exam import check_encoding as check_encoding
from posenc.testing.exam import checks as checks
