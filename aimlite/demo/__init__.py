"""A demonstration: small networks learn to read digits in parallel processes, all writing one repo. `python -m aimlite.demo`."""
