"""The command line: `aimlite COMMAND`. docs/cli.md says what each command takes, prints and returns."""
