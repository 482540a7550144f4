"""Floor 9: the command line. One file a subcommand; :mod:`cryorecon.cli.main` holds the table of them."""
