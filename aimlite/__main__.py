"""`python -m aimlite` is the command `aimlite`."""

from aimlite.cli.__main__ import main

if __name__ == "__main__":
    main()
