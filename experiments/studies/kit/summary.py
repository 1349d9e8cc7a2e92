"""The first screen of the report: sentences whose numbers are those of the findings.

The text is `summary.md` in the folder of the studies. A reference in braces stands for the
difference that a study found, with its interval: `{accuracy | emoji_styles | DISAM - SAM}`
is the study, the setting and the contrast of a finding.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.studies.kit.claims import Finding

SUMMARY = "summary.md"
REFERENCE = re.compile(r"\{([^{}|]+)\|([^{}|]+)\|([^{}|]+)\}")


def read_summary(studies: Path, findings: Mapping[str, Sequence[Finding]]) -> str:
    """The text with its references replaced.

    Args:
      studies: the folder of the studies.
      findings: study -> its findings.

    Returns:
      Markdown; empty where the folder holds no summary.

    Raises:
      ValueError: a reference is to nothing that was found.
    """
    file = studies / SUMMARY
    if not file.exists():
        return ""
    return REFERENCE.sub(lambda match: _effect(match, findings), file.read_text()).strip()


def _effect(match: re.Match[str], findings: Mapping[str, Sequence[Finding]]) -> str:
    study, where, contrast = (" ".join(part.split()) for part in match.groups())
    for finding in findings.get(study, ()):
        if finding.where == where and _plain(finding.contrast) == _plain(contrast):
            return finding.effect
    there = sorted({f"{f.where} | {f.contrast}" for f in findings.get(study, ())})
    raise ValueError(
        f"{SUMMARY} refers to {match[0]}, which no study found; {study} found: "
        f"{'; '.join(there) or 'nothing'}."
    )


def _plain(contrast: str) -> str:
    return contrast.replace("\N{MINUS SIGN}", "-")
