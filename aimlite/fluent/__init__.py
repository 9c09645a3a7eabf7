"""The API of `init`, `log`, `finish`: a thin layer over `Run`, which everything goes through.

`start` opens runs, `run` is what one of them offers, `disabled` stands in for it when tracking is off, `enabling` says whether it is.
"""
