"""``python -m posenc`` is the ``posenc`` command."""

from posenc.lab.__main__ import main

if __name__ == "__main__":
    main()
