"""`python -m experiments`."""

from experiments.cli.app import main
from experiments.cli.signals import end_at_once

end_at_once()
main()
