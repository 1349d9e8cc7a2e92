"""`python -m experiments`."""

from experiments.cli import main
from experiments.cli_signals import end_at_once

end_at_once()
main()
