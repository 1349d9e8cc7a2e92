"""`python -m experiments`."""

from experiments.cli import main
from experiments.cli_signals import end_within_seconds

end_within_seconds()
main()
