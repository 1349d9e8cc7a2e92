"""Whether a tree of images is a benchmark, whole."""

from pathlib import Path

from experiments.data.benchmarks import BENCHMARKS, Benchmark
from experiments.data.folders import Listing, domain_folders, in_lines, list_folder


def find_benchmark(name: str, data_dir: Path) -> Listing:
    """Lists a benchmark whose folder is `data_dir` itself or stands in it.

    Args:
      name: a key of `BENCHMARKS`.
      data_dir: DomainBed's data directory, or the benchmark's folder.

    Returns:
      The listing.

    Raises:
      ValueError: there is no such tree.
    """
    benchmark = BENCHMARKS[name]
    inside = data_dir / benchmark.folder
    root = inside if inside.is_dir() else data_dir
    if not set(domain_folders(root)) & set(benchmark.domains):
        raise ValueError(
            f"{data_dir} does not hold {name}: expected {inside}, or in it the domains "
            f"{', '.join(benchmark.domains)}."
        )
    return list_folder(root)


def count_problems(benchmark: Benchmark, listing: Listing) -> list[str]:
    """The images that are missing or too many, a line for a domain or class."""
    found = []
    for domain in benchmark.domains:
        if domain not in listing.folders:
            found.append(
                f"{domain}: no such domain, {benchmark.counts[domain]} images expected"
            )
        elif domain in benchmark.class_counts:
            found += _by_class(benchmark, listing, domain)
        else:
            found += _by_domain(benchmark, listing, domain)
    return found


def check_benchmark(
    benchmark: Benchmark, listing: Listing, *, allow_missing: bool
) -> list[str]:
    """Refuses a tree that is not the benchmark.

    Args:
      benchmark: expected.
      listing: found.
      allow_missing: let other counts pass; a domain or a class that the benchmark does not
        have is still refused, for there is no label for it.

    Returns:
      What differs and was let pass.

    Raises:
      ValueError: the tree differs; the message names domains and classes, found and
        expected.
    """
    foreign = [
        f"{kind} {name}: {benchmark.name} has none of that name"
        for kind, names, known in (
            ("domain", listing.folders, benchmark.domains),
            ("class", listing.classes, benchmark.classes),
        )
        for name in names
        if name not in known
    ]
    counts = count_problems(benchmark, listing)
    if foreign:
        raise ValueError(
            f"{listing.root} is not {benchmark.name}:\n{in_lines(foreign + counts)}\n"
            "Move these folders elsewhere, or read the tree with --data folder."
        )
    if counts and benchmark.exact and not allow_missing:
        raise ValueError(
            f"{listing.root} is not the whole of {benchmark.name}:\n{in_lines(counts)}\n"
            "Mend the folder, or pass --allow-missing to go on with what is there."
        )
    return counts


def _by_class(benchmark: Benchmark, listing: Listing, domain: str) -> list[str]:
    counts = listing.counts(domain)
    expected = zip(benchmark.classes, benchmark.class_counts[domain], strict=True)
    return [
        f"{domain}/{name}: {counts.get(name, 0)} found, {count} expected"
        for name, count in expected
        if counts.get(name, 0) != count
    ]


def _by_domain(benchmark: Benchmark, listing: Listing, domain: str) -> list[str]:
    counts = listing.counts(domain)
    found = [
        f"{domain}/{name}: 0 found, some expected"
        for name in benchmark.classes
        if not counts.get(name)
    ]
    total, expected = sum(counts.values()), benchmark.counts[domain]
    return found + [f"{domain}: {total} found, {expected} expected"] * (total != expected)
